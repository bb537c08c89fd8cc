"""The dead-leaves pictures and their cached bank."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import jsonargparse
import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from scipy import ndimage

from datamodules import DataError, DeadLeaves
from datamodules.degradations import Rain
from datamodules.leaves.bank import LeafBank, LeafReader, cache_folder
from datamodules.leaves.look import LOOK, PLAIN, LeafLook, ingredients, streams
from datamodules.leaves.picture import render
from datamodules.leaves.textures import LUMA, fractal, fur, texture_pool

SMALL = LeafBank(count=3, size=64)

# At its greatest, and on something it shows on.
_LIMITS = {"texture": 0.5, "bend": 20.0, "grain": 0.05, "light": 0.5, "shading": 0.5}
STRONGEST = dict.fromkeys(ingredients(), 1.0) | _LIMITS
NEEDS = {"stripes": "texture", "fur": "texture", "motley": "texture", "upright": "shapes"}

# The function that draws an ingredient, in the module where it is called.
DRAWN_BY = {
    "texture": "leaves.textures._patchy",
    "stripes": "leaves.textures.grating",
    "fur": "leaves.textures.fur",
    "nature": "leaves.textures._natural_colour",
    "clusters": "leaves.shapes.fractal",
    "sky": "leaves.picture.sky",
    "bricks": "leaves.picture.bricks",
    "wires": "leaves.picture.wires",
    "text": "leaves.picture.text",
    "shadows": "leaves.picture.shadows",
    "highlights": "leaves.picture.highlights",
    "tone": "leaves.camera._exposed",
    "blur": "leaves.camera.ndimage.gaussian_filter",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MRDIFF_CACHE", str(tmp_path))
    return tmp_path


def test_a_picture_is_a_function_of_seed_and_index() -> None:
    picture = render(0, 1, 64)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, render(0, 1, 64))
    assert not np.array_equal(picture, render(0, 2, 64))
    assert not np.array_equal(picture, render(1, 1, 64))


@pytest.mark.parametrize("name", ingredients())
def test_each_ingredient_shows_and_leaves_the_others_as_they_were(name: str) -> None:
    below = replace(PLAIN, **{part: STRONGEST[part] for part in {NEEDS.get(name, name)} - {name}})
    with_it = replace(below, **{name: STRONGEST[name]})
    changed = sum(int((render(3, i, 96, below) != render(3, i, 96, with_it)).sum()) for i in (1, 2))
    assert changed > 0
    # The streams of the others are their own: without the ingredient, nothing else has moved.
    assert np.array_equal(
        render(3, 1, 96, replace(with_it, **{name: 0.0})), render(3, 1, 96, below)
    )


@pytest.mark.parametrize("name", ["wires", "text", "bricks", "highlights"])
def test_scenery_covers_a_part_and_leaves_the_rest_of_the_picture(name: str) -> None:
    without = replace(LOOK, **{name: 0.0, "tone": 0.0, "sharpening": 0.0, "shadows": 0.0})
    with_it = replace(without, **{name: 1.0})
    same = [(render(5, i, 128, without) == render(5, i, 128, with_it)).mean() for i in range(4)]
    assert 0.2 < np.mean(same) < 1


@pytest.mark.parametrize(("name", "function"), DRAWN_BY.items())
def test_what_is_off_is_not_even_drawn(
    name: str, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(*_: object, **__: object) -> None:
        raise AssertionError(f"{name} is off and drawn")

    # Bending calls the same function as clusters, sharpening and chroma that of blur.
    off = replace(LOOK, **{"bend": 0.0, "sharpening": 0.0, "chroma": 0.0, name: 0.0})
    monkeypatch.setattr(f"datamodules.{function}", called)
    for index in range(3):
        render(0, index, 48, off)


def test_plain_pictures_have_discs_of_one_colour_each() -> None:
    picture = render(0, 4, 96, PLAIN)
    inside = picture[1:-1, 1:-1]
    flat = [
        (inside == np.roll(picture, step, axis)[1:-1, 1:-1]).all(-1)
        for step, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1))
    ]
    assert np.mean(np.logical_and.reduce(flat)) > 0.4


@pytest.mark.parametrize("look", [LOOK, PLAIN], ids=["all", "plain"])
@pytest.mark.parametrize("size", [16, 65])
def test_a_picture_is_never_constant(look: LeafLook, size: int) -> None:
    for index in range(12):
        picture = render(1, index, size, look)
        assert picture.shape == (size, size, 3)
        assert picture.dtype == np.uint8
        assert np.ptp(picture) > 3, (index, size)


def test_impossible_looks_are_refused() -> None:
    for wrong in ({"text": 1.5}, {"grain": -0.1}, {"cover": (2.0, 1.0)}, {"least": (0.0, 1.0)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LeafLook(**wrong)


def test_the_spectrum_of_pictures_falls_as_that_of_photos() -> None:
    slopes = []
    window = np.hanning(160)[:, None] * np.hanning(160)
    frequency = np.hypot(np.fft.fftfreq(160)[:, None], np.fft.fftfreq(160)[None])
    edges = np.geomspace(0.03, 0.45, 13)
    ring = np.digitize(frequency, edges)
    for index in range(16):
        grey = render(2, index, 160).mean(-1) / 255
        power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
        means = [power[ring == i].mean() for i in range(1, 13)]
        slopes.append(np.polyfit(np.log(edges[1:] * edges[:-1]) / 2, np.log(means), 1)[0])
    assert -2.9 < np.median(slopes) < -1.9


def test_the_spectrum_of_fractal_noise_falls_with_the_exponent() -> None:
    field = fractal(np.random.default_rng(0), 256, 1.0)
    assert float(field.std()) == pytest.approx(1, rel=1e-3)
    amplitude = np.abs(np.fft.fft2(field))
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None])
    used = (frequency > 0.02) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[used]), np.log(amplitude[used]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)


def _coherence(field: np.ndarray) -> float:
    """0 where gradients point anywhere, 1 where all near ones lie on a line (structure tensor)."""
    dy, dx = np.gradient(field.astype(np.float64))
    yy, xx, xy = (ndimage.gaussian_filter(a, 4) for a in (dy * dy, dx * dx, dy * dx))
    return float((np.hypot(xx - yy, 2 * xy) / (xx + yy)).mean())


def test_strands_of_fur_run_side_by_side() -> None:
    for seed in range(4):
        field = fur(np.random.default_rng(seed), 96)
        assert abs(float(field.mean())) < 1e-4
        assert float(field.std()) == pytest.approx(1, abs=1e-3)
        noise = np.random.default_rng(seed).standard_normal(field.shape)
        assert _coherence(field) > 0.6 > 2 * _coherence(noise)


def test_more_fur_leaves_the_other_textures_of_a_picture_as_they_were() -> None:
    few, many = (texture_pool(replace(LOOK, fur=f), streams(0, 0), 32) for f in (0.0, 0.5))
    same = [np.array_equal(a, b) for a, b in zip(few, many, strict=True)]
    assert 0 < sum(same) < len(same)
    assert same[-1], "the last one is no fur: it shows whether those before moved it"


def test_pictures_have_the_contrast_and_sharpness_of_photos() -> None:
    grey = np.stack([render(0, index, 160) for index in range(12)]).mean(-1) / 255
    assert 0.25 < grey.mean() < 0.6
    assert 0.1 < grey.std((1, 2)).mean() < 0.3
    assert 0.015 < np.abs(np.diff(grey, axis=1)).mean() < 0.06


def _detail_of_colour(picture: np.ndarray) -> float:
    """How strong what is finer than about 2 pixels is in B - Y, relative to Y."""
    grey = picture @ LUMA
    fine = [a - ndimage.gaussian_filter(a, 2) for a in (picture[..., 2] - grey, grey)]
    return float(fine[0].std() / fine[1].std())


def test_colour_is_less_sharp_than_brightness_as_in_photos() -> None:
    look = replace(LOOK, chroma=0.0)
    blurred = [render(0, i, 160).astype(np.float32) for i in range(12)]
    sharp = [render(0, i, 160, look).astype(np.float32) for i in range(12)]
    # 0.14 at the median of 32 photos, of which 80 % lie between 0.10 and 0.28.
    assert 0.1 < np.median([_detail_of_colour(p) for p in blurred]) < 0.3
    assert np.mean([_detail_of_colour(p) for p in sharp]) > 0.3
    same = [np.abs((a - b) @ LUMA) for a, b in zip(blurred, sharp, strict=True)]
    assert np.median(same) < 0.6, "brightness has moved"  # by no more than the rounding


def test_motley_leaves_the_brightness_alone() -> None:
    look = replace(PLAIN, texture=0.3)
    for index in range(3):
        plain, motley = (render(4, index, 96, replace(look, motley=m)) for m in (0.0, 0.2))
        inside = ((motley > 0) & (motley < 255)).all(-1)  # where nothing was clipped
        moved = (motley.astype(np.float32) - plain)[inside]
        assert np.abs(moved).mean() > 0.3
        assert np.abs(moved @ LUMA).mean() < 0.5 * np.abs(moved).mean()


def test_the_bank_is_drawn_once_and_holds_the_pictures(cache: Path) -> None:
    path = SMALL.ensure(workers=0)
    assert path.parent == cache == cache_folder()
    stamp = path.stat().st_mtime_ns
    assert SMALL.ensure(workers=0) == path
    assert path.stat().st_mtime_ns == stamp, "drawn twice"
    picture = LeafReader(SMALL)[2]
    assert picture.shape == (3, 64, 64)
    assert torch.equal(picture.permute(1, 2, 0), torch.from_numpy(render(0, 2, 64)))
    assert [p for p in cache.iterdir() if p != path] == [], "temporary files are left"


def test_workers_draw_the_same_bank() -> None:
    alone = SMALL.ensure(workers=0).read_bytes()
    SMALL.path.unlink()
    assert SMALL.ensure(workers=2).read_bytes() == alone


@pytest.mark.parametrize("damage", ["empty", "short", "one byte", "other shape"])
def test_a_damaged_bank_is_drawn_again(damage: str) -> None:
    path = SMALL.ensure(workers=0)
    whole = path.read_bytes()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "short":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "one byte":
        path.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    else:
        save_file({"images": np.zeros((1, 8, 8, 3), np.uint8)}, path)
    assert not SMALL.is_whole()
    SMALL.ensure(workers=0)
    assert path.read_bytes() == whole


def test_an_interrupted_drawing_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SMALL.ensure(workers=0)
    assert list(cache.iterdir()) == []


def test_other_parameters_are_another_file() -> None:
    paths = {SMALL.path, LeafBank(count=4, size=64).path, LeafBank(count=3, size=64, seed=1).path}
    assert len(paths) == 3


def test_every_look_has_a_file_of_its_own() -> None:
    looks = [LOOK, replace(LOOK, cover=(1.0, 2.5)), replace(LOOK, least=(1.0, 12.0))]
    looks += [replace(LOOK, **{name: 0.125}) for name in ingredients()]
    assert len({replace(SMALL, look=look).path for look in looks}) == len(looks)
    assert replace(SMALL, look=LeafLook()).path == SMALL.path


def test_a_look_can_be_written_in_yaml(tmp_path: Path) -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(DeadLeaves, "train")
    config = tmp_path / "look.yaml"
    config.write_text(
        "train:\n  class_path: datamodules.DeadLeaves\n  init_args:\n"
        "    degradation: datamodules.degradations.Rain\n"
        "    look:\n      texture: 0\n      least: [2, 5]\n"
    )
    given = ["--config", str(config), "--train.init_args.look.text", "0.5"]
    dataset = parser.instantiate(parser.parse_args(given)).train
    assert dataset.bank.look == replace(LOOK, texture=0.0, least=(2.0, 5.0), text=0.5)
    with pytest.raises(ValueError, match="text must lie"):
        parser.instantiate(parser.parse_args([*given[:-1], "5"]))


def test_an_unwritable_cache_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MRDIFF_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="MRDIFF_CACHE"):
        SMALL.ensure(workers=0)


def test_reading_before_preparing_says_so() -> None:
    dataset = DeadLeaves(Rain(), patch_size=32, images=2, image_size=64)
    with pytest.raises(DataError, match="prepare"):
        dataset[0]


def test_dead_leaves_samples() -> None:
    dataset = DeadLeaves(Rain(), patch_size=32, length=7, images=3, image_size=64)
    dataset.prepare()
    assert len(dataset) == 7
    sample = dataset[6]
    assert sample["lq"].shape == sample["gt"].shape == (3, 32, 32)
    assert sample["lq"].dtype == torch.float32
    assert float((sample["lq"] - sample["gt"]).min()) >= 0
    with pytest.raises(IndexError):
        dataset[7]


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="patch_size"):
        DeadLeaves(Rain(), patch_size=128, image_size=64)
    with pytest.raises(ValueError, match="count"):
        LeafBank(count=0)


def test_a_full_disk_is_known_before_drawing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    monkeypatch.setattr("datamodules.leaves.bank.render", None)  # is not called
    with pytest.raises(DataError, match=r"not enough space.*set MRDIFF_CACHE"):
        SMALL.ensure(workers=0)
    assert not list(cache.iterdir())


def test_a_disk_that_gets_full_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("datamodules.leaves.bank.save_file", full)
    with pytest.raises(DataError, match=r"No space left on device.*set MRDIFF_CACHE"):
        SMALL.ensure(workers=0)
    assert not list(cache.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_what_is_no_bank_is_not_waited_for(cache: Path) -> None:
    os.mkfifo(SMALL.path)
    assert not SMALL.is_whole()
    with pytest.raises(DataError, match="set MRDIFF_CACHE"):
        SMALL.ensure(workers=0)
    SMALL.path.unlink()
    SMALL.path.write_bytes(b"short")
    with pytest.raises(DataError, match="cut short"):
        LeafReader(SMALL)[0]
