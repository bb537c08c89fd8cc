"""Folders of photos: matching, checking, cropping, and errors that name the files."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import Tensor

from datamodules import CleanFolder, DataError, DemoPhotos, LQFolder, PairedFolder, write_demo
from datamodules.datasets.base import random_patches, random_turn
from datamodules.degradations import Rain
from datamodules.demo import main
from datamodules.randomness import SampleKey
from mrdiff.photo import centre_crop, read_rgb
from tests.places import SHARED

PAIRED = SHARED / "data" / "paired"


def _save(
    path: Path, *, size: tuple[int, int] = (24, 16), mode: str = "RGB", seed: int = 0
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), np.uint8)
    Image.fromarray(values.squeeze()).save(path)


def _pairs(root: Path, names: list[str]) -> tuple[str, str]:
    for seed, name in enumerate(names):
        _save(root / "LQ" / f"{name}.png", seed=seed)
        _save(root / "GT" / f"{name}.png", seed=seed)
    return str(root / "LQ"), str(root / "GT")


def test_pairs_match_by_relative_stem_whatever_the_suffix(tmp_path: Path) -> None:
    lq, gt = _pairs(tmp_path, ["b", "day/a", "night/a"])
    _save(tmp_path / "LQ" / "c.d.JPG")
    _save(tmp_path / "GT" / "c.d.png")
    dataset = PairedFolder(lq, gt)
    dataset.check()
    assert [dataset[i]["name"] for i in range(len(dataset))] == ["b", "c.d", "day/a", "night/a"]
    assert torch.equal(dataset[2]["lq"], read_rgb(tmp_path / "LQ" / "day" / "a.png"))


def test_files_without_a_partner_are_all_named(tmp_path: Path) -> None:
    lq, gt = _pairs(tmp_path, ["a", "b", "c"])
    (tmp_path / "GT" / "b.png").unlink()
    (tmp_path / "LQ" / "c.png").unlink()
    with pytest.raises(DataError, match=r"LQ/b\.png has no ref.*GT/c\.png has no degr") as caught:
        PairedFolder(lq, gt).check()
    assert "holds 2 images" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_ten_problems_are_listed(tmp_path: Path) -> None:
    lq, gt = _pairs(tmp_path, ["a"])
    for index in range(13):
        _save(tmp_path / "LQ" / f"x{index}.png")
    with pytest.raises(DataError, match="and 3 more") as caught:
        PairedFolder(lq, gt).check()
    assert str(caught.value).count("has no reference") == 10


def test_sizes_channels_and_broken_files_come_in_one_error(tmp_path: Path) -> None:
    lq, gt = _pairs(tmp_path, ["good", "large", "grey", "broken"])
    _save(tmp_path / "LQ" / "large.png", size=(25, 16))
    _save(tmp_path / "LQ" / "grey.png", mode="L")
    (tmp_path / "GT" / "broken.png").write_bytes(b"not an image")
    with pytest.raises(DataError) as caught:
        PairedFolder(lq, gt).check()
    message = str(caught.value)
    assert "large is 25x16 in the LQ folder and 24x16 in the GT folder" in message
    assert "grey is grey in the LQ folder and colour in the GT folder" in message
    assert "broken.png is not a readable image" in message
    assert "good" not in message


def test_sizes_are_compared_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    for folder in ("LQ", "GT"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (24, 16)).save(tmp_path / "LQ" / "a.jpg", exif=exif)
    Image.new("RGB", (16, 24)).save(tmp_path / "GT" / "a.png")
    dataset = PairedFolder(str(tmp_path / "LQ"), str(tmp_path / "GT"))
    dataset.check()
    assert dataset[0]["lq"].shape == dataset[0]["gt"].shape == (3, 24, 16)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    lq, gt = _pairs(tmp_path, ["a"])
    _save(tmp_path / "LQ" / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg and a\.png"):
        PairedFolder(lq, gt).check()


@pytest.mark.parametrize("kind", ["paired", "clean", "lq"])
def test_missing_and_empty_folders_say_what_to_do(tmp_path: Path, kind: str) -> None:
    def dataset(folder: Path) -> PairedFolder | CleanFolder | LQFolder:
        if kind == "paired":
            return PairedFolder(str(folder), str(folder))
        return CleanFolder(str(folder), Rain()) if kind == "clean" else LQFolder(str(folder))

    with pytest.raises(DataError, match=r"nowhere: no such folder; give the folder"):
        dataset(tmp_path / "nowhere").check()
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match="no images in it"):
        dataset(tmp_path).check()


@pytest.mark.parametrize("margin", [0, 3, 9])
@pytest.mark.parametrize("shape", [(30, 25), (16, 40), (12, 12)])
def test_a_margin_is_cut_from_the_image_or_its_mirror_image(
    shape: tuple[int, int], margin: int
) -> None:
    image = torch.rand(3, *shape)
    wide = np.pad(image.numpy(), ((0, 0), (9, 9), (9, 9)), mode="reflect")
    for seed in range(20):
        cut = random_patches([image], 8, torch.Generator().manual_seed(seed))[0]
        seen = random_patches([image], 8, torch.Generator().manual_seed(seed), margin=margin)[0]
        assert torch.equal(seen[:, margin : margin + 8, margin : margin + 8], cut)
        side = 8 + 2 * margin
        windows = np.lib.stride_tricks.sliding_window_view(wide, (side, side), axis=(1, 2))
        there = (windows.transpose(1, 2, 0, 3, 4) == seen.numpy()).all(axis=(2, 3, 4))
        assert there.any(), "not a piece of the mirrored image"


def test_patches_of_a_pair_come_from_one_place_and_are_turned_alike(tmp_path: Path) -> None:
    lq, gt = _pairs(tmp_path, ["a"])  # equal contents, so equal patches
    dataset = PairedFolder(lq, gt, patch_size=8)
    seen = set()
    for epoch in range(40):
        sample = dataset[SampleKey(0, epoch, 0)]
        assert sample["lq"].shape == (3, 8, 8)
        assert torch.equal(sample["lq"], sample["gt"])
        seen.add(sample["lq"].numpy().tobytes())
    assert len(seen) > 30
    assert dataset[0]["lq"].shape == (3, 16, 24), "validation takes the whole image"
    assert PairedFolder(lq, gt, crop_size=12)[0]["gt"].shape == (3, 12, 12)


def test_all_eight_symmetries_and_all_places_occur() -> None:
    square = torch.arange(9.0).view(1, 3, 3)
    generator = torch.Generator().manual_seed(0)
    turned = {tuple(random_turn([square], generator)[0].flatten().tolist()) for _ in range(200)}
    assert len(turned) == 8
    cut = {float(random_patches([square], 2, generator)[0][0, 0, 0]) for _ in range(100)}
    assert cut == {0, 1, 3, 4}


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (5, 3), (16, 7), (40, 40)])
def test_small_images_are_reflected_up_to_the_patch(shape: tuple[int, int]) -> None:
    image = torch.rand(3, *shape)
    patch = random_patches([image], 16, torch.Generator().manual_seed(0))[0]
    assert patch.shape == (3, 16, 16)
    assert set(patch.flatten().tolist()) <= set(image.flatten().tolist())


def test_reflection_does_not_repeat_the_rim() -> None:
    line = torch.arange(5.0).expand(1, 5, 5)
    patch = random_patches([line], 8, torch.Generator().manual_seed(0))[0]
    assert patch[0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]


def test_centre_crop_keeps_the_middle() -> None:
    image = torch.arange(25.0).view(1, 5, 5)
    assert centre_crop(image, 3)[0, 0].tolist() == [6, 7, 8]
    assert centre_crop(image, 9).shape == (1, 5, 5)


def test_validation_rain_depends_on_seed_and_name_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _save(tmp_path / "all" / f"{name}.png", size=(32, 32))
    _save(tmp_path / "one" / "b.png", size=(32, 32))
    rain = Rain(severity=(1.0, 1.0))

    def rainy(folder: str, index: int, seed: int = 0) -> Tensor:
        return CleanFolder(str(tmp_path / folder), rain, seed=seed)[index]["lq"]

    assert torch.equal(rainy("all", 1), rainy("one", 0))
    assert not torch.equal(rainy("all", 0), rainy("all", 1))
    assert not torch.equal(rainy("all", 1), rainy("all", 1, seed=1))


def test_photos_to_restore_have_no_reference(tmp_path: Path) -> None:
    _save(tmp_path / "sub" / "a.png")
    sample = LQFolder(str(tmp_path))[0]
    assert set(sample) == {"lq", "name"}
    assert sample["name"] == "sub/a"


def test_demo_photos_are_real_fixed_and_rainy() -> None:
    photos = DemoPhotos(Rain(), size=96)
    photos.check()
    samples = [photos[i] for i in range(len(photos))]
    assert {"astronaut", "chelsea", "coffee", "rocket"} <= {s["name"] for s in samples}
    for index, sample in enumerate(samples):
        assert sample["lq"].shape == sample["gt"].shape == (3, 96, 96)
        assert float(sample["gt"].std()) > 0.1
        assert not torch.equal(sample["lq"], sample["gt"])
        assert torch.equal(photos[index]["lq"], sample["lq"])


def test_demo_files_hold_the_demo_photos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = write_demo(tmp_path / "demo", size=64)
    written = PairedFolder(str(tmp_path / "demo" / "LQ"), str(tmp_path / "demo" / "GT"))
    written.check()
    assert [written[i]["name"] for i in range(len(written))] == names
    assert torch.allclose(written[0]["lq"], DemoPhotos(Rain(), size=64)[0]["lq"], atol=1e-6)
    assert main([str(tmp_path / "again"), "--size", "64"]) == 0
    assert "astronaut" in capsys.readouterr().out
    (tmp_path / "file").write_text("in the way")
    assert main([str(tmp_path / "file"), "--size", "64"]) == 2


@pytest.mark.skipif(not PAIRED.is_dir(), reason="needs the benchmark pairs in ../shared/data")
def test_every_shared_benchmark_is_accepted() -> None:
    folders = [folder for folder in sorted(PAIRED.iterdir()) if (folder / "GT").is_dir()]
    for folder in folders:
        dataset = PairedFolder(str(folder / "LQ"), str(folder / "GT"), crop_size=64)
        dataset.check()
        assert dataset[0]["lq"].shape == dataset[0]["gt"].shape
    assert len(folders) >= 10


def test_what_restoring_reads_can_be_trained_with(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    for kind in ("LQ", "GT"):
        (tmp_path / kind).mkdir()
        Image.fromarray(pixels).save(tmp_path / kind / "b.png")
    (tmp_path / "LQ" / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(pixels[..., 0]))
    tifffile.imwrite(tmp_path / "GT" / "a.tif", pixels[..., 0].astype(np.uint32))
    pairs = PairedFolder(str(tmp_path / "LQ"), str(tmp_path / "GT"))
    pairs.check()
    assert pairs[0]["lq"].shape == pairs[0]["gt"].shape == (3, 20, 30)
    (tmp_path / "LQ" / "a.jxl").write_bytes(b"\xff\x0a")
    with pytest.raises(DataError, match=r"a\.jxl is not a readable image"):
        pairs.check()


@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png"])
def test_a_turned_photo_fits_an_upright_reference(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    for kind, size in (("LQ", (20, 30)), ("GT", (30, 20))):
        (tmp_path / kind).mkdir()
        image = Image.new("RGB", size, "red")
        if kind == "LQ":
            image.save(tmp_path / kind / f"a{suffix}", exif=exif)
        else:
            image.save(tmp_path / kind / "a.png")
    pairs = PairedFolder(str(tmp_path / "LQ"), str(tmp_path / "GT"))
    pairs.check()
    assert pairs[0]["lq"].shape == pairs[0]["gt"].shape == (3, 20, 30)
