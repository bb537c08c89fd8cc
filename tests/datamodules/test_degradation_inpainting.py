"""Inpainting: picture and mask agree, each kind has its share, masks of a folder are used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.degradations import holes
from datamodules.degradations.base import to_8_bit
from datamodules.degradations.inpainting import Inpainting
from datamodules.errors import DataError
from mrdiff.photo import PhotoError, list_images, read_image, write_image

KINDS = ("thin", "brush", "box", "half")


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _photo(height: int = 64, width: int = 80, channels: int = 3) -> Tensor:
    return to_8_bit(0.9 * torch.rand(channels, height, width, generator=_generator(99)))


def _only(kind: str, share: float = 0.25, fill: float = 1.0) -> Inpainting:
    weights = {name: float(name == kind) for name in KINDS}
    return Inpainting(
        thin=weights["thin"],
        brush=weights["brush"],
        box=weights["box"],
        half=weights["half"],
        share=(share, share),
        fill=fill,
    )


def _shares(kind: str, share: float, height: int = 96, width: int = 128) -> np.ndarray:
    photo = _photo(height, width, 1)
    masks = [
        _only(kind, share).degrade_with_mask(photo, _generator(seed)).mask for seed in range(25)
    ]
    return np.array([float(1 - mask.mean()) for mask in masks if mask is not None])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_picture_and_mask_agree(kind: str, channels: int, dtype: torch.dtype) -> None:
    photo = to_8_bit(_photo(channels=channels).to(dtype))
    before = photo.clone()
    for fill in (1.0, 0.0, 0.5):
        inpainting = _only(kind, fill=fill)
        lq, mask = inpainting.degrade_with_mask(photo, _generator(2))
        assert mask is not None
        assert mask.shape == (1, 64, 80)
        assert mask.dtype == dtype
        assert mask.unique().tolist() == [0.0, 1.0]
        kept = mask[0] == 1
        assert torch.equal(lq[:, kept], photo[:, kept])
        assert torch.equal(lq[:, ~kept], torch.full_like(lq[:, ~kept], round(fill * 255) / 255))
        assert torch.equal(lq, inpainting.degrade(photo, _generator(2)))
    assert torch.equal(photo, before)


@pytest.mark.parametrize("kind", ["thin", "brush"])
@pytest.mark.parametrize("share", [0.05, 0.4])
def test_strokes_are_drawn_until_the_share_is_reached(kind: str, share: float) -> None:
    shares = _shares(kind, share)
    assert float(shares.min()) >= share
    assert float(shares.mean()) < share + 0.08  # the last stroke goes beyond it
    assert float(shares.max()) < share + 0.2


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_boxes_have_the_share_less_where_they_overlap(share: float) -> None:
    shares = _shares("box", share)
    assert float(shares.max()) < 1.1 * share
    assert float(shares.min()) > 0.25 * share
    assert float(np.median(shares)) > 0.7 * share


def test_halves_are_the_four_halves() -> None:
    photo = _photo(channels=1)
    found = set()
    for seed in range(40):
        mask = _only("half").degrade_with_mask(photo, _generator(seed)).mask
        assert mask is not None
        assert float(mask.mean()) == 0.5
        corners = mask[0, 0, 0], mask[0, 0, -1], mask[0, -1, 0], mask[0, -1, -1]
        found.add(tuple(int(corner) for corner in corners))
    assert found == {(0, 1, 0, 1), (1, 0, 1, 0), (0, 0, 1, 1), (1, 1, 0, 0)}


def test_kinds_come_as_often_as_their_weights_say() -> None:
    photo = _photo(channels=1)
    inpainting = Inpainting(thin=3.0, brush=0.0, box=0.0, half=1.0, share=(0.1, 0.1))
    masks = [inpainting.degrade_with_mask(photo, _generator(seed)).mask for seed in range(300)]
    halves = sum(float(mask.mean()) == 0.5 for mask in masks if mask is not None)
    assert halves / 300 == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 200), (33, 17)])
def test_something_is_left_of_small_pictures(kind: str, height: int, width: int) -> None:
    photo = _photo(height, width)
    for seed in range(20):
        mask = _only(kind, 0.5).degrade_with_mask(photo, _generator(seed)).mask
        assert mask is not None
        assert 0.1 < float(mask.mean()) < 1


def _write_mask(path: Path, height: int, width: int, seed: int = 0) -> np.ndarray:
    kept = np.random.default_rng(seed).uniform(size=(height, width)) < 0.7
    write_image(path, torch.from_numpy(kept)[None].float())
    return kept


def _turns(mask: np.ndarray) -> list[np.ndarray]:
    return [np.rot90(m, k) for m in (mask, mask.T) for k in range(4)]


def test_masks_of_a_folder_are_used_as_they_are_but_turned(tmp_path: Path) -> None:
    kept = [_write_mask(tmp_path / f"{seed}.png", 24, 24, seed) for seed in range(3)]
    inpainting, photo, seen = Inpainting(folder=str(tmp_path)), _photo(24, 24), set()
    for seed in range(150):
        lq, mask = inpainting.degrade_with_mask(photo, _generator(seed))
        assert mask is not None
        turns = [turn for one in kept for turn in _turns(one)]
        matches = [k for k, turn in enumerate(turns) if np.array_equal(turn, mask[0] == 1)]
        assert len(matches) == 1
        seen.add(matches[0])
        assert torch.equal(lq, torch.where(mask == 1, photo, 1.0))
    assert len(seen) == 24  # each mask in each of its eight positions


def test_a_larger_mask_is_cut_and_a_smaller_one_enlarged(tmp_path: Path) -> None:
    kept = _write_mask(tmp_path / "mask.png", 20, 30)
    inpainting = Inpainting(folder=str(tmp_path))
    piece = inpainting.degrade_with_mask(_photo(12, 12), _generator(0)).mask
    assert piece is not None
    windows = [
        window
        for turn in _turns(kept)
        for window in np.lib.stride_tricks.sliding_window_view(turn, (12, 12)).reshape(-1, 12, 12)
    ]
    assert any(np.array_equal(window, piece[0] == 1) for window in windows)
    for size in ((40, 60), (60, 40)):  # the mask is turned to lie as the picture does
        large = inpainting.degrade_with_mask(_photo(*size), _generator(1)).mask
        assert large is not None
        blocks = [np.kron(turn, np.ones((2, 2))) for turn in _turns(kept)]
        assert any(np.array_equal(block, large[0]) for block in blocks)
    for size in ((21, 31), (8, 300), (300, 8)):
        odd = inpainting.degrade_with_mask(_photo(*size), _generator(2)).mask
        assert odd is not None
        assert odd.shape == (1, *size)


def test_a_piece_of_a_mask_has_a_hole_where_that_can_be(tmp_path: Path) -> None:
    kept = torch.ones(1, 40, 40)
    kept[:, :, 18:22] = 0
    write_image(tmp_path / "line.png", kept)
    inpainting = Inpainting(folder=str(tmp_path))
    photo = _photo(16, 16)
    shares = [
        float(inpainting.degrade_with_mask(photo, _generator(s)).mask.mean()) for s in range(60)
    ]  # type: ignore[union-attr]
    assert np.mean([share < 1 for share in shares]) > 0.95


def test_a_folder_without_masks_is_an_error_that_names_it(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        inpainting = Inpainting(folder=str(folder))
        with pytest.raises(DataError, match=str(folder)):
            inpainting.degrade(_photo(), _generator(0))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(PhotoError, match=r"broken\.png"):
        Inpainting(folder=str(tmp_path)).degrade(_photo(), _generator(0))


def test_no_share_is_the_photo_itself() -> None:
    for photo in (_photo(), _photo(9, 120, 1), to_8_bit(_photo().double())):
        for seed in range(8):
            lq, mask = Inpainting(share=(0.0, 0.0), half=0.0).degrade_with_mask(
                photo, _generator(seed)
            )
            assert torch.equal(lq, photo)
            assert mask is not None
            assert bool((mask == 1).all())


@pytest.mark.parametrize(
    "wrong",
    [
        {"thin": -1.0},
        {"half": float("nan")},
        {"share": (0.5, 0.2)},
        {"share": (0.1, 0.95)},
        {"fill": 1.5},
        {"thin": 0.0, "brush": 0.0, "box": 0.0, "half": 0.0},
    ],
    ids=str,
)
def test_impossible_parameters_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Inpainting(**wrong)  # type: ignore[arg-type]


def _outline(missing: np.ndarray) -> float:
    """Length of the outline of the holes over their area: large for thin strokes."""
    down, right = missing[1:] != missing[:-1], missing[:, 1:] != missing[:, :-1]
    return float((down.sum() + right.sum()) / missing.sum())


def test_thin_strokes_are_like_those_of_the_benchmark(shared: Path) -> None:
    files = list_images(shared / "data" / "masks" / "thin")[:50]
    theirs = [read_image(path)[0].numpy() < 0.5 for path in files]
    rng = np.random.default_rng(0)
    ours = [holes.thin(256, 256, float(mask.mean()), rng) for mask in theirs]
    outlines = [np.mean([_outline(mask) for mask in masks]) for masks in (ours, theirs)]
    assert outlines[0] == pytest.approx(outlines[1], rel=0.15)
    low, high = Inpainting().share
    assert np.mean([low <= mask.mean() <= high for mask in theirs]) > 0.95
