"""Haze: the scattering formula, a plausible depth, the strength of the benchmark."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.degradations.base import to_8_bit
from datamodules.degradations.fields import draw_waves, smooth_fields
from datamodules.degradations.haze import Haze, _along_edges, _draw_ground, _ground, depths
from datamodules.degradations.packing import packed
from mrdiff.photo import read_rgb

HALF_LEVEL = 0.51 / 255


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _photo(height: int = 48, width: int = 64, channels: int = 3) -> Tensor:
    return to_8_bit(torch.rand(channels, height, width, generator=_generator(99)))


def _plain(beta: float, light: float = 0.9) -> Haze:
    """One depth everywhere, grey air: the formula with known t and A."""
    return Haze(beta=(beta, beta), light=(light, light), tint=(0.0, 0.0), relief=(0.0, 0.0))


def _depth(haze: Haze, photo: Tensor, generator: torch.Generator) -> Tensor:
    return depths(photo[None], packed([haze.landscape(generator, photo.shape[1])]))[0]


def _field(height: int, width: int, span: float, seed: int) -> Tensor:
    return smooth_fields(draw_waves(span, _generator(seed)), height, width)[0]


def test_at_one_depth_haze_is_the_scattering_formula_and_can_be_inverted() -> None:
    photo = _photo()
    for beta in (0.1, 0.7, 2.0):
        clear = math.exp(-beta)
        hazy = _plain(beta).degrade(photo, _generator(0))
        torch.testing.assert_close(hazy, photo * clear + 0.9 * (1 - clear), atol=HALF_LEVEL, rtol=0)
        back = (hazy - 0.9 * (1 - clear)) / clear
        torch.testing.assert_close(back, photo, atol=HALF_LEVEL / clear, rtol=0)


def test_contrast_falls_with_beta() -> None:
    photo = _photo()
    for relief in (0.0, 1.0):
        spread = []
        for beta in (0.0, 0.5, 1.0, 2.0):
            haze = Haze(beta=(beta, beta), relief=(relief, relief))
            hazy = haze.degrade(photo, _generator(1))
            spread.append(float((hazy[:, :, 1:] - hazy[:, :, :-1]).abs().mean()))
        assert spread == sorted(spread, reverse=True)
        assert spread[-1] < 0.5 * spread[0]


def test_every_pixel_is_between_the_photo_and_the_air() -> None:
    photo = _photo()
    for seed in range(10):
        hazy = Haze(light=(0.8, 0.8), tint=(0.0, 0.0)).degrade(photo, _generator(seed))
        assert bool((hazy <= photo.clamp(min=0.8) + HALF_LEVEL).all())
        assert bool((hazy >= photo.clamp(max=0.8) - HALF_LEVEL).all())


def test_a_black_photo_shows_the_air_before_its_depth() -> None:
    photo = torch.zeros(3, 40, 56)
    haze = Haze(beta=(0.8, 0.8), light=(0.9, 0.9), tint=(0.0, 0.0))
    hazy = haze.degrade(photo, _generator(4))
    generator = _generator(4)
    torch.rand(3, generator=generator)  # beta, light and tint are drawn first
    expected = 0.9 * (1 - torch.exp(-0.8 * _depth(haze, photo, generator)))
    torch.testing.assert_close(hazy, expected.expand(3, -1, -1), atol=HALF_LEVEL, rtol=0)


def test_tinted_air_is_red_or_blue_and_grey_photos_stay_grey() -> None:
    for tint in (0.1, -0.1):
        haze = Haze(beta=(2.0, 2.0), light=(0.7, 0.7), tint=(tint, tint))
        red, green, blue = haze.degrade(torch.zeros(3, 16, 16), _generator(0)).mean((1, 2))
        assert float((red - green) * tint) > 0
        assert float((green - blue) * tint) > 0
        assert haze.degrade(_photo(channels=1), _generator(0)).shape == (1, 48, 64)


def test_a_small_patch_is_nearly_at_one_depth_and_a_photo_is_not() -> None:
    spread = {
        size: [
            float(_depth(Haze(), _photo(*size), _generator(seed)).log().std()) for seed in range(40)
        ]
        for size in ((64, 64), (400, 600))
    }
    patch, photo = np.median(spread[64, 64]), np.median(spread[400, 600])
    assert patch < 0.1
    assert photo > 2 * patch
    assert max(spread[64, 64]) > 0.15  # something nearer stands in some


def test_ground_is_farther_towards_the_horizon() -> None:
    for seed in range(20):
        start, steepness = torch.tensor(_draw_ground(_generator(seed), 500))[:, None, None]
        depth = _ground(start, steepness, 500)[0]
        assert bool((depth[1:] <= depth[:-1]).all())
        assert float(depth[0]) > float(depth[-1])


def test_steps_of_the_depth_move_to_the_edges_of_the_photo() -> None:
    photo, field = torch.zeros(3, 64, 96), torch.zeros(64, 96)
    photo[:, :, 48:], field[:, 54:] = 1.0, 1.0
    moved = _along_edges(field[None], photo[None])[0]
    step = (moved[:, 1:] - moved[:, :-1]).abs().mean(0)
    assert int(step.argmax()) == 47
    assert float(step[47]) > 0.4
    assert float(step[53]) < 0.1


def test_a_field_is_its_sum_of_plane_waves() -> None:
    # The slow and obvious sum behind the two matrix products.
    field = _field(20, 30, span=12.0, seed=3)
    chance = torch.rand(3, 8, generator=_generator(3)).double()
    frequency = (0.4 + 1.6 * chance[0]) / 12
    power = (1 / frequency).square().sum() / 2
    expected = torch.zeros(20, 30, dtype=torch.float64)
    y, x = torch.meshgrid(torch.arange(20), torch.arange(30), indexing="ij")
    for f, turn, phase in zip(frequency, 2 * math.pi * chance[1], chance[2], strict=True):
        cycles = f * (turn.sin() * y + turn.cos() * x) + phase
        expected += torch.cos(2 * math.pi * cycles) / f / power.sqrt()
    torch.testing.assert_close(field.double(), expected, atol=1e-4, rtol=0)


def test_a_field_has_mean_0_and_deviation_1() -> None:
    fields = torch.stack([_field(16, 16, span=40.0, seed=seed) for seed in range(600)])
    assert float(fields.mean()) == pytest.approx(0, abs=0.15)
    assert float(fields.std()) == pytest.approx(1, abs=0.1)


def test_no_haze_is_the_photo_itself() -> None:
    for photo in (_photo(), _photo(9, 200, 1), _photo().double()):
        nothing = Haze(beta=(0.0, 0.0)).degrade(photo, _generator(5))
        assert torch.equal(nothing, to_8_bit(photo))


@pytest.mark.parametrize(
    "wrong",
    [
        {"beta": (-0.1, 1.0)},
        {"light": (0.9, 0.7)},
        {"tint": (-0.6, 0.0)},
        {"relief": (0.0, 4.5)},
    ],
)
def test_impossible_ranges_are_refused_by_name(wrong: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Haze(**wrong)


def test_default_haze_is_as_strong_as_that_of_the_benchmark(shared: Path) -> None:
    def psnr(a: Tensor, b: Tensor) -> float:
        return float(-10 * torch.log10((a - b).square().mean()))

    folder = shared / "data" / "paired" / "hazy"
    clean = [read_rgb(path) for path in sorted((folder / "GT").iterdir())]
    hazy = [read_rgb(path) for path in sorted((folder / "LQ").iterdir())]
    theirs = [psnr(a, b) for a, b in zip(hazy, clean, strict=True)]
    generator = _generator(0)
    ours = [psnr(Haze().degrade(c, generator), c) for _ in range(3) for c in clean]
    assert float(np.median(ours)) == pytest.approx(float(np.median(theirs)), abs=3)
    assert np.quantile(ours, 0.1) < min(theirs) + 2  # heavy enough
    assert np.quantile(ours, 0.9) > max(theirs) - 3  # light enough
