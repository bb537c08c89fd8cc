"""What drops on glass must look like: coverage, refraction, defocus, untouched surroundings."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from datamodules.degradations import raindrop
from datamodules.degradations.base import to_8_bit
from datamodules.degradations.glass import drop_discs, glass_of, top_drops
from datamodules.degradations.packing import Draws, packed
from datamodules.degradations.raindrop import Raindrop, _disc, averaged
from datamodules.randomness import uniform
from mrdiff.photo import read_rgb
from tests.places import SHARED

DROPS = SHARED / "data" / "paired" / "raindrop"


class _One(Raindrop):
    """One round drop: y, x, radius, view and light of :attr:`drop`."""

    drop = (50.5, 70.25, 6.0, 3.0, 1.0)

    def _drops(self, *_: object) -> tuple[np.ndarray, np.ndarray, list[int]]:
        return np.array([self.drop]), np.array([self.drop[:3]]), [1]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _photo(height: int = 40, width: int = 56) -> Tensor:
    return to_8_bit(torch.rand(3, height, width, generator=_generator(0)))


def _drawn(drops: Raindrop, height: int, width: int, seed: int) -> tuple[int, Draws]:
    (group,) = drops.pack([drops.draw(_generator(seed), (3, height, width))])["groups"]
    return group["kind"], group["draws"]


def _cover(drops: Raindrop, height: int, width: int, seed: int) -> np.ndarray:
    """How much of each pixel is under drops, before the defocus."""
    scale, drawn = _drawn(replace(drops, defocus=(1.0, 1.0)), height, width, seed)
    assert scale == 1
    return top_drops(drawn, height, width, 1)[2][0, 1:-1, 1:-1].numpy()


def test_glass_without_drops_changes_nothing() -> None:
    image = _photo()
    for seed in range(5):
        dry = Raindrop(density=(0.0, 0.0)).degrade(image, _generator(seed))
        assert torch.equal(dry, image)


def test_pixels_that_no_drop_reaches_are_unchanged() -> None:
    image, drops, compared = _photo(96, 128), Raindrop(film=(0.0, 0.0), density=(0.05, 0.2)), 0
    for seed in range(10):
        defocus = uniform(*drops.defocus, _generator(seed))
        scale, drawn = _drawn(drops, 96, 128, seed)
        frame = math.ceil(defocus / scale) + (scale > 1)
        cover = top_drops(drawn, 96 // scale, 128 // scale, frame)[2][0].numpy()
        away = ndimage.distance_transform_edt(cover == 0)[frame:-frame, frame:-frame]
        away = away.repeat(scale, 0).repeat(scale, 1)
        dry = torch.from_numpy(away * scale > defocus + 3 * scale)
        same = (drops.degrade(image, _generator(seed)) == image).all(0)
        assert bool(same[dry].all())
        assert float(same.double().mean()) < float(dry.double().mean()) + 0.3
        compared += int(dry.sum())
    assert compared > 10000


@pytest.mark.parametrize("view", [3.0, 4.0, 6.0])
def test_a_drop_shows_the_scene_inverted_and_smaller(view: float) -> None:
    # On a ramp of brightness a drop shows the ramp reversed and ``view`` times steeper.
    height, width = 96, 144
    columns = torch.arange(width, dtype=torch.float64).expand(height, width)
    rows = torch.arange(height, dtype=torch.float64)[:, None].expand(height, width)
    plain = {"sky": (0.0, 0.0), "rim": (0.0, 0.0), "film": (0.0, 0.0)}
    one = _One(defocus=(1.5, 1.5), view=(view, view), **plain)
    object.__setattr__(one, "drop", (50.5, 70.25, 6.0, view, 1.0))
    scale, drawn = _drawn(one, height, width, 0)
    scene = torch.stack([rows, columns])[None] / 200
    cover, *shown = one._drops_of(scene, drawn, scale)[0, :, 2:-2, 2:-2].numpy()
    assert cover.sum() == pytest.approx(math.pi * 36, rel=0.02)
    y, x = np.nonzero(cover == 1)
    expected = np.stack([50.5 - view * (y - 50.5), 70.25 - view * (x - 70.25)])
    assert np.allclose(200 * np.stack(shown)[:, y, x], expected, atol=1e-3)


def test_of_two_drops_the_last_is_seen_and_each_is_the_union_of_its_discs() -> None:
    chance = np.array([[0.1, 0.9, 0.4, 0.2, 0.8, 0.5], [0.7, 0.1, 0.2, 0.9, 0.3, 0.3]])
    y, x, radius = np.array([[40.2, 20.6], [33.7, 40.1], [9.0, 14.0]]).transpose(0, 1)
    discs, counts = drop_discs(y, x, radius, np.array([25.0, 0.0]), chance)
    assert sum(counts) == len(discs)
    assert counts[0] > counts[1] == 4
    level = 0.6 * radius
    glass = packed([glass_of(discs, counts, level, (46, 54), 3)])
    drop, inside, wet = (plane[0].numpy() for plane in top_drops(glass, 46, 54, 3))
    rows, columns = np.mgrid[-3:49, -3:57]
    depths = np.stack([r - np.hypot(rows - cy, columns - cx) for cy, cx, r in discs])
    each = np.stack([depths[: counts[0]].max(0), depths[counts[0] :].max(0)])
    expected = np.where(each[1] > -0.5, 2, np.where(each[0] > -0.5, 1, 0))
    assert np.array_equal(drop, expected)
    assert np.allclose(wet, (each.max(0) + 0.5).clip(0, 1), atol=1e-4)
    seen = np.where(expected == 2, each[1] / level[1], each[0] / level[0]).clip(0, 1)
    assert np.allclose(inside, np.where(expected == 0, 1, seen), atol=1e-4)


def test_a_trail_runs_upward_from_the_drop() -> None:
    bumps = np.array([[0.3, 0.5, 0.6, 0.1, 0.9, 0.9]])
    place = np.array([100.0]), np.array([50.0]), np.array([8.0])
    (still, _), (run, _) = (drop_discs(*place, np.array([up]), bumps) for up in (0.0, 60.0))
    assert np.array_equal(run[: len(still)], still)
    trail = run[len(still) :]
    assert trail[:, 0].min() == pytest.approx(40)
    assert bool((np.diff(trail[:, 0]) < 0).all())
    assert bool((np.diff(trail[:, 2]) < 0).all()), "it narrows"


def test_defocus_is_the_mean_over_a_disc() -> None:
    line = np.arange(-5, 6)
    disc = (4.3 + 0.5 - np.hypot(line[:, None], line)).clip(0, 1)
    assert np.allclose(_disc(4.3)[0].numpy(), disc / disc.sum(), atol=1e-7)


def test_fine_detail_is_averaged_over_the_squares_that_are_shown_as_one_pixel() -> None:
    scene = torch.rand(2, 3, 60, 48, generator=_generator(0), dtype=torch.float64)
    small = averaged(scene, torch.tensor([4.0, 12.0]), 4.0)
    assert small.shape == (2, 3, 15, 12)
    assert torch.allclose(small[0], torch.nn.functional.avg_pool2d(scene[0], 4))
    square = scene[1, :, 28:40, 20:32]
    assert torch.allclose(small[1, :, 8, 6], square.mean((1, 2)))


def test_drops_that_are_blurred_widely_look_alike_in_fewer_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = ndimage.gaussian_filter(np.random.default_rng(0).random((3, 90, 101)), (0, 6, 6))
    photo = torch.from_numpy((image - image.min()) / np.ptp(image)).float()
    for defocus, scale in ((7.0, 2), (13.0, 4)):
        drops = Raindrop(defocus=(defocus, defocus), density=(0.2, 0.2), film=(0.0, 0.0))
        assert _drawn(drops, 90, 101, 0)[0] == scale
        fast = [drops.degrade(photo, _generator(seed)) for seed in range(6)]
        with monkeypatch.context() as patched:
            patched.setattr(raindrop, "_FINE", 1000)
            slow = [drops.degrade(photo, _generator(seed)) for seed in range(6)]
        off = (torch.stack(fast) - torch.stack(slow)).abs()
        assert float(off.mean()) < 2 / 255
        assert float(off.max()) < 20 / 255


def test_a_film_of_water_spreads_light_and_takes_none() -> None:
    image = _photo(64, 64)
    drops = Raindrop(
        film=(0.3, 0.3), defocus=(2.0, 2.0), density=(1e-4, 1e-4), size=(2.0, 2.0), sky=(0.0, 0.0)
    )
    for seed in range(3):
        hazy = drops.degrade(image, _generator(seed)).square()
        scene = image.square()
        slope = torch.corrcoef(torch.stack([hazy.flatten(), scene.flatten()]))[0, 1]
        assert float(hazy.std() * slope / scene.std()) == pytest.approx(0.7, abs=0.05)
        assert float(hazy.mean()) == pytest.approx(float(scene.mean()), rel=0.02)


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
    one = _One(sky=(0.6, 0.6), defocus=(1.0, 1.0), rim=(0.0, 0.0))
    object.__setattr__(one, "drop", (50.5, 40.5, 20.0, 5.0, 1.0))
    light = one.degrade(torch.zeros(1, 96, 81), _generator(1))[0].square()
    assert float(light[34, 40]) < 0.1
    assert float(light[50, 40]) == pytest.approx(0.3, abs=0.02)
    assert float(light[67, 40]) > 0.5


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
