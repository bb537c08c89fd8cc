"""The photos that grid, sweep and quantize measure on: one choice, one reader of their middles."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mrdiff.cli.common.crops import read_crop, usable
from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.jobs import Photo, find_photos, spread
from mrdiff.photo import PhotoError, write_image


def save(path: Path, channels: int, size: tuple[int, int]) -> Path:
    write_image(path, torch.rand(channels, *size, generator=torch.Generator().manual_seed(0)))
    return path


@pytest.mark.parametrize("total", [1, 2, 5, 16, 33])
def test_the_chosen_photos_are_spread_evenly_and_in_order(total: int) -> None:
    photos = [Photo(Path(f"{i:02}.png"), Path(f"{i:02}.png")) for i in range(total)]
    for count in (1, 2, 5, 16, 99):
        chosen = [photos.index(photo) for photo in spread(photos, count)]
        assert len(chosen) == min(count, total)
        assert chosen == sorted(set(chosen))
        gaps = {later - earlier for earlier, later in pairwise(chosen)} or {0}
        assert max(gaps) - min(gaps) <= 1


def test_a_crop_has_the_same_place_in_photo_reference_and_mask(tmp_path: Path) -> None:
    names = {"lq": save(tmp_path / "lq/a.png", 4, (40, 48))}
    for kind, channels in {"gt": 3, "mask": 1}.items():
        names[kind] = save(tmp_path / kind / "a.png", channels, (40, 48))
    (photo,) = find_photos(tmp_path / "lq", reference=tmp_path / "gt", mask=tmp_path / "mask")
    whole, crop = read_crop(photo, 99), read_crop(photo, 32)
    assert crop.gt is not None
    assert crop.mask is not None
    assert (crop.lq.shape, crop.gt.shape, crop.mask.shape) == (
        (4, 32, 32),
        (3, 32, 32),
        (1, 32, 32),
    )
    for part, all_of_it in ((crop.lq, whole.lq), (crop.gt, whole.gt), (crop.mask, whole.mask)):
        assert all_of_it is not None
        assert torch.equal(part, all_of_it[:, 4:36, 8:40])
    for kind in ("gt", "mask"):
        before = names[kind].read_bytes()
        save(names[kind], 3, (9, 7))
        with pytest.raises(PhotoError, match=r"another size than .*lq/a\.png: 7 x 9, not 48 x 40"):
            read_crop(photo, 32)
        names[kind].write_bytes(before)


def test_photos_that_cannot_be_used_are_named_once_some_can(tmp_path: Path, capsys) -> None:
    for name in "ab":
        save(tmp_path / f"{name}.png", 3, (16, 16))
    photos = find_photos(tmp_path)
    (tmp_path / "a.png").write_bytes(b"nothing")
    assert [crop.photo.name for crop in usable(photos, lambda p: read_crop(p, 8))] == ["b"]
    assert "left out: " in capsys.readouterr().err
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(CommandError, match=r"none of the 2 photos can be used: .*a\.png"):
        usable(photos, lambda p: read_crop(p, 8))
    assert capsys.readouterr().err == ""
