"""What drops on glass must look like: coverage, refraction, defocus, untouched surroundings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from datamodules.degradations.base import to_8_bit
from datamodules.degradations.raindrop import (
    Raindrop,
    _defocused,
    _discs,
    _Drop,
    _glass,
    _put,
    _seen,
)
from datamodules.randomness import uniform
from mrdiff.photo import read_rgb
from tests.places import SHARED

DROPS = SHARED / "data" / "paired" / "raindrop"


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _photo(height: int = 40, width: int = 56) -> Tensor:
    return to_8_bit(torch.rand(3, height, width, generator=_generator(0)))


def _round(y: float, x: float, radius: float, view: float) -> _Drop:
    return _Drop(y, x, radius, view, 1.0, np.array([[y, x, radius]], np.float32))


def _cover(drops: Raindrop, height: int, width: int, seed: int) -> np.ndarray:
    return drops.render(height, width, 0, 5.0, _generator(seed)).cover


def test_glass_without_drops_changes_nothing() -> None:
    image = _photo()
    for seed in range(5):
        dry = Raindrop(density=(0.0, 0.0)).degrade(image, _generator(seed))
        assert torch.equal(dry, image)


def test_pixels_that_no_drop_reaches_are_unchanged() -> None:
    image, drops = _photo(96, 128), Raindrop()
    for seed in range(10):
        generator = _generator(seed)
        defocus = uniform(*drops.defocus, generator)
        view = uniform(*drops.view, generator)
        frame = math.ceil(defocus)
        cover = drops.render(96, 128, frame, view, generator).cover
        away = ndimage.distance_transform_edt(cover == 0)[frame:-frame, frame:-frame]
        dry = torch.from_numpy(away > defocus + 1)
        same = (drops.degrade(image, _generator(seed)) == image).all(0)
        assert bool(same[dry].all())
        assert float(same.double().mean()) < float(dry.double().mean()) + 0.1


@pytest.mark.parametrize("view", [3.0, 4.0, 6.0])
def test_a_drop_shows_the_scene_inverted_and_smaller(view: float) -> None:
    # On a ramp of brightness a drop shows the ramp reversed and ``view`` times steeper.
    height, width, frame = 96, 144, 5
    columns = torch.arange(width, dtype=torch.float64).expand(height, width)
    rows = torch.arange(height, dtype=torch.float64)[:, None].expand(height, width)
    drop = _round(frame + 50.5, frame + 70.25, 6.0, view)
    glass = _glass([drop], (height + 2 * frame, width + 2 * frame), frame, 0.0)
    seen = _seen(torch.stack([rows, columns]), glass, view)
    y, x = np.nonzero(glass.cover)
    assert len(y) == pytest.approx(math.pi * 36, rel=0.1)
    expected = np.stack([50.5 - view * (y - drop.y), 70.25 - view * (x - drop.x)])
    assert np.allclose(seen.numpy()[:, y, x], expected, atol=1e-3)


def test_a_drop_is_the_union_of_its_discs() -> None:
    owner, depth = np.full((50, 60), -1), np.zeros((50, 60), np.float32)
    discs = _discs(40.2, 33.7, 9.0, 25.0, [0.1, 0.9, 0.4, 0.2, 0.8, 0.5])
    _put(owner, depth, 7, discs)
    y, x = np.mgrid[:50, :60]
    inside = np.max([r - np.hypot(y - cy, x - cx) for cy, cx, r in discs], 0)
    assert np.array_equal(owner == 7, inside > 0)
    assert np.allclose(depth, inside.clip(0), atol=1e-4)


def test_a_trail_runs_upward_from_the_drop() -> None:
    bumps = [0.3, 0.5, 0.6, 0.1, 0.9, 0.9]
    still, run = _discs(100, 50, 8, 0.0, bumps), _discs(100, 50, 8, 60.0, bumps)
    assert np.array_equal(run[: len(still)], still)
    trail = run[len(still) :]
    assert trail[:, 0].min() == pytest.approx(40)
    assert bool((np.diff(trail[:, 0]) < 0).all())
    assert bool((np.diff(trail[:, 2]) < 0).all()), "it narrows"


def test_defocus_is_the_mean_over_a_disc() -> None:
    planes = torch.rand(2, 40, 33, generator=_generator(0), dtype=torch.float64)
    line = np.arange(-5, 6)
    disc = (4.3 + 0.5 - np.hypot(line[:, None], line)).clip(0, 1)
    slow = ndimage.convolve(planes.numpy(), (disc / disc.sum())[None], mode="constant")
    assert np.allclose(_defocused(planes, 4.3).numpy(), slow[:, 5:-5, 5:-5])


def test_drops_in_front_of_an_even_wall_cannot_be_seen() -> None:
    image = torch.full((3, 64, 64), 102 / 255)
    drops = Raindrop(sky=(0.0, 0.0), rim=(0.0, 0.0), light=(1.0, 1.0), density=(0.3, 0.3))
    for seed in range(5):
        assert torch.allclose(drops.degrade(image, _generator(seed)), image, atol=1e-6)


def test_even_a_small_glass_has_a_drop_unless_it_is_dry() -> None:
    rare = Raindrop(density=(0.001, 0.001))
    for seed in range(20):
        assert _cover(rare, 24, 24, seed).max() == 1
        assert _cover(Raindrop(density=(0.0, 0.0)), 24, 24, seed).max() == 0


@pytest.mark.parametrize("run_probability", [0.0, 0.5])
def test_density_is_the_share_under_drops_at_any_size(run_probability: float) -> None:
    drops = Raindrop(density=(0.2, 0.2), size=(8.0, 40.0), run_probability=run_probability)
    for height, width, count in ((128, 128, 80), (256, 256, 25), (384, 512, 10)):
        share = np.mean([_cover(drops, height, width, seed).mean() for seed in range(count)])
        assert share == pytest.approx(0.2, rel=0.15), (height, width)


def test_a_patch_of_glass_has_no_borders() -> None:
    # Drops come in from outside; so many that none has to be added.
    drops = Raindrop(density=(0.3, 0.3), size=(8.0, 20.0), run_probability=0.3)
    cover = np.mean([_cover(drops, 48, 48, seed) for seed in range(600)], 0)
    middle = cover[12:36, 12:36].mean()
    for rim in (cover[0], cover[-1], cover[:, 0], cover[:, -1]):
        assert rim.mean() == pytest.approx(middle, rel=0.2)


def test_the_sky_is_in_the_lower_part_of_a_drop() -> None:
    dark = torch.zeros(1, 96, 96)
    drops = Raindrop(sky=(0.6, 0.6), defocus=(1.0, 1.0), size=(30.0, 30.0), run_probability=0.0)
    generator = _generator(1)
    glass = drops.render(96, 96, 0, 5.0, generator)
    inside = glass.cover > 0
    assert glass.low[inside].min() < 0.2
    assert glass.low[inside].max() > 0.8
    assert float(drops.degrade(dark, _generator(1)).max()) > 0.4


def test_the_result_has_no_graph() -> None:
    assert not Raindrop().degrade(_photo().requires_grad_(), _generator(0)).requires_grad


@pytest.mark.parametrize(
    "wrong",
    [
        {"density": (0.1, 1.5)},
        {"size": (20.0, 10.0)},
        {"defocus": (0.0, 4.0)},
        {"view": (-1.0, 4.0)},
        {"rim": (0.0, 1.1)},
        {"run_probability": 1.5},
    ],
)
def test_impossible_ranges_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Raindrop(**wrong)  # type: ignore[arg-type]


def _psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


@pytest.mark.skipif(not DROPS.is_dir(), reason="needs the real pairs in ../shared/data")
def test_default_drops_are_as_strong_as_real_ones() -> None:
    clean = [read_rgb(path) for path in sorted((DROPS / "GT").iterdir())]
    degraded = [read_rgb(path) for path in sorted((DROPS / "LQ").iterdir())]
    theirs = [_psnr(a, b) for a, b in zip(degraded, clean, strict=True)]
    ours = [_psnr(Raindrop().degrade(c, _generator(k)), c) for k, c in enumerate(clean * 8)]
    assert float(np.median(ours)) == pytest.approx(float(np.median(theirs)), abs=4)
    assert min(ours) < min(theirs) + 1
