"""The dead-leaves pictures and their cached bank."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from datamodules import DataError, DeadLeaves, Rain
from datamodules.dead_leaves import LeafBank, LeafReader, cache_folder
from datamodules.leaves import fractal, render

SMALL = LeafBank(count=3, size=64)


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


def test_the_spectrum_of_fractal_noise_falls_with_the_exponent() -> None:
    field = fractal(np.random.default_rng(0), 256, 1.0)
    assert float(field.std()) == pytest.approx(1, rel=1e-3)
    amplitude = np.abs(np.fft.fft2(field))
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None])
    used = (frequency > 0.02) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[used]), np.log(amplitude[used]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)


def test_pictures_have_the_contrast_and_sharpness_of_photos() -> None:
    grey = np.stack([render(0, index, 160) for index in range(12)]).mean(-1) / 255
    assert 0.25 < grey.mean() < 0.6
    assert 0.1 < grey.std((1, 2)).mean() < 0.3
    assert 0.015 < np.abs(np.diff(grey, axis=1)).mean() < 0.06


def test_the_bank_is_drawn_once_and_holds_the_pictures(cache: Path) -> None:
    path = SMALL.ensure(workers=0)
    assert path.parent == cache == cache_folder()
    stamp = path.stat().st_mtime_ns
    assert SMALL.ensure(workers=0) == path
    assert path.stat().st_mtime_ns == stamp, "drawn twice"
    picture = LeafReader(SMALL)[2]
    assert picture.shape == (3, 64, 64)
    assert torch.equal((picture * 255).byte().permute(1, 2, 0), torch.from_numpy(render(0, 2, 64)))
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
