"""Shadow: what it may do to light, where, and how softly."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import ndimage
from torch import Tensor

from datamodules.degradations.base import to_8_bit
from datamodules.degradations.shadow import Shadow, _blurred, shades, soft_edges
from mrdiff.photo import read_rgb
from tests.datamodules.srgb import to_linear, to_srgb

HALF_LEVEL = 0.51 / 255


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _photo(height: int = 64, width: int = 80, channels: int = 3) -> Tensor:
    return to_8_bit(torch.rand(channels, height, width, generator=_generator(99)))


def _mask(shadow: Shadow, height: int, width: int, seed: int) -> Tensor:
    draws = shadow.draw(_generator(seed), (3, height, width))
    return shades(shadow.pack([draws]))[0]


def test_linear_light_and_back() -> None:
    levels = torch.arange(256, dtype=torch.float64) / 255
    torch.testing.assert_close(to_srgb(to_linear(levels)), levels, atol=1e-7, rtol=0)
    # IEC 61966-2-1: the middle of the scale is about a fifth of the light.
    assert float(to_linear(torch.tensor(0.5))) == pytest.approx(0.214041, abs=1e-5)
    assert torch.equal(to_8_bit(to_srgb(to_linear(levels.float()))), to_8_bit(levels.float()))


def test_a_shadow_only_darkens_and_leaves_the_sunlit_part_as_it_is() -> None:
    photo, sunlit = _photo(), 0
    for seed in range(30):
        shaded = Shadow().degrade(photo, _generator(seed))
        mask = _mask(Shadow(), 64, 80, seed)
        assert bool((shaded <= photo).all())
        assert torch.equal(shaded[:, mask == 0], photo[:, mask == 0])
        sunlit += int((mask == 0).sum())
    assert sunlit > 0


def test_full_shadow_and_penumbra_are_shares_of_the_linear_light() -> None:
    photo = _photo()
    shadow = Shadow(light=(0.3, 0.3), blue=(0.0, 0.0), ambient=(0.0, 0.0))
    for seed in range(10):
        mask = _mask(shadow, 64, 80, seed)
        expected = to_srgb(to_linear(photo) * (1 - 0.7 * mask))
        shaded = shadow.degrade(photo, _generator(seed))
        torch.testing.assert_close(shaded, expected, atol=HALF_LEVEL, rtol=0)


def test_the_sky_is_blue_a_lamp_is_not_and_neither_brightens() -> None:
    grey = torch.full((3, 64, 64), 200 / 255)
    for blue in (0.4, -0.4):
        for seed in range(5):
            shadow = Shadow(blue=(blue, blue))
            difference = shadow.degrade(grey, _generator(seed)) - grey
            assert float((difference[2] - difference[0]).sum() * blue) > 0
    for extreme in (1.0, -1.0):
        shadow = Shadow(blue=(extreme, extreme), light=(0.9, 0.9), ambient=(0.3, 0.3))
        assert bool((shadow.degrade(grey, _generator(0)) <= grey).all())


def test_the_light_inside_varies_by_the_ambient_range_alone() -> None:
    white = torch.ones(1, 64, 64)
    flat, varied = (
        Shadow(light=(0.3, 0.3), ambient=(amount, amount), size=(4.0, 4.0), penumbra=(1.0, 1.0))
        for amount in (0.0, 0.2)
    )
    for seed in range(5):
        full = _mask(flat, 64, 64, seed) == 1
        assert float(flat.degrade(white, _generator(seed))[0, full].std()) < 1e-6
        shade = varied.degrade(white, _generator(seed))[0, full]
        assert 0 < float(shade.max() - shade.min()) < 0.3


def test_a_narrowed_edge_is_the_same_curve_on_a_finer_scale() -> None:
    levels = torch.arange(256, dtype=torch.uint8)[None, None]
    distance = torch.logit(levels / 255)
    for factor in (1.0, 2.0, 4.0):
        narrow = soft_edges(levels, torch.tensor([[math.log(factor), 0.0, 0.0]]))
        torch.testing.assert_close(narrow, torch.sigmoid(factor * distance))
        assert bool((narrow.diff() >= 0).all())
        assert narrow[0, 0, [0, -1]].tolist() == [0, 1]


def test_an_edge_narrows_across_the_picture() -> None:
    levels = torch.full((1, 33, 17), 200, dtype=torch.uint8)
    slopes = torch.tensor([[0.9, 0.5, -0.4]])
    gain = torch.logit(soft_edges(levels, slopes)[0]) / math.log(200 / 55)
    for row, y in ((0, -1), (16, 0), (32, 1)):
        for column, x in ((0, -1), (8, 0), (16, 1)):
            expected = math.exp(0.9 + 0.5 * y - 0.4 * x)
            assert float(gain[row, column]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("edge", [6.0, 40.0, 100.0])
def test_an_outline_is_blurred_alike_at_any_width_of_its_edge(edge: float) -> None:
    outline = np.array([[20.0, -30.0], [140.0, 50.0], [90.0, 120.0], [10.0, 80.0]])
    blurred = _blurred(outline, 96, 110, edge)
    assert blurred is not None
    canvas = Image.new("L", (510, 496))
    ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in outline + 200], fill=255)
    slow = ndimage.gaussian_filter(np.asarray(canvas, float), edge / 4)[200:296, 200:310]
    assert np.abs(blurred - slow).max() < 30  # where a picture's corner is all in shadow
    assert np.abs(blurred - slow).mean() < 6
    assert _blurred(outline + 1000, 96, 110, edge) is None


def test_a_wider_penumbra_is_softer() -> None:
    def steepest(width: float) -> float:
        shadow = Shadow(penumbra=(width, width), shapes=(1, 1), size=(0.3, 0.3))
        masks = [_mask(shadow, 160, 160, seed) for seed in range(15)]
        return float(np.median([float((m[1:] - m[:-1]).abs().max()) for m in masks]))

    hard, soft, softer = steepest(2.0), steepest(12.0), steepest(48.0)
    assert hard > 3 * soft > 6 * softer
    # A blurred step of four standard deviations rises by about 4 / sqrt(2 pi) / width a pixel.
    assert soft == pytest.approx(1.6 / 12, rel=0.3)


def test_masks_cross_borders_and_patches_mostly_see_an_edge() -> None:
    masks = torch.stack([_mask(Shadow(), 64, 64, seed) for seed in range(100)])
    assert 0 <= float(masks.min()) <= float(masks.max()) <= 1
    share = (masks > 0.5).float().mean((1, 2))
    assert float((share < 0.01).float().mean()) < 0.05
    assert float(((share > 0.01) & (share < 0.99)).float().mean()) > 0.5
    rim = torch.cat([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]], dim=1)
    assert float((rim.amax(1) > 0.5).float().mean()) > 0.5


def test_where_shadows_meet_it_is_no_darker_than_in_one() -> None:
    white = torch.ones(1, 48, 48)
    shadow = Shadow(light=(0.25, 0.25), shapes=(8, 8), ambient=(0.0, 0.0), size=(2.0, 2.0))
    shaded = shadow.degrade(white, _generator(0))
    assert float(to_linear(shaded).min()) == pytest.approx(0.25, abs=0.005)


@pytest.mark.parametrize("nothing", [{"light": (1.0, 1.0)}, {"shapes": (0, 0)}], ids=str)
def test_no_shadow_is_the_photo_itself(nothing: dict[str, tuple[int, int]]) -> None:
    for photo in (_photo(), _photo(9, 120, 1), to_8_bit(_photo().double())):
        for seed in range(4):
            assert torch.equal(Shadow(**nothing).degrade(photo, _generator(seed)), photo)


@pytest.mark.parametrize(
    "wrong",
    [
        {"light": (0.0, 0.5)},
        {"blue": (0.3, -0.1)},
        {"shapes": (-1, 2)},
        {"size": (0.0, 0.4)},
        {"penumbra": (0.0, 30.0)},
        {"ambient": (0.0, 0.5)},
        {"blob_probability": 1.5},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_impossible_ranges_are_refused_by_name(wrong: dict[str, tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Shadow(**wrong)


def test_default_shadows_are_as_strong_as_real_ones(shared: Path) -> None:
    def psnr(a: Tensor, b: Tensor) -> float:
        return float(-10 * torch.log10((a - b).square().mean()))

    folder = shared / "data" / "paired" / "shadowed"
    clean = [read_rgb(path) for path in sorted((folder / "GT").iterdir())]
    shaded = [read_rgb(path) for path in sorted((folder / "LQ").iterdir())]
    theirs = [psnr(a, b) for a, b in zip(shaded, clean, strict=True)]
    generator = _generator(0)
    ours = [psnr(Shadow().degrade(c, generator), c) for c in clean]
    assert float(np.median(ours)) == pytest.approx(float(np.median(theirs)), abs=3.5)
    assert np.quantile(ours, 0.1) < np.quantile(theirs, 0.1) + 2  # heavy enough
    assert np.quantile(ours, 0.9) > np.quantile(theirs, 0.9) - 2  # light enough
