"""Low light: an exposure in linear light, and the noise of few photons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from datamodules.degradations import srgb
from datamodules.degradations.low_light import LowLight, photons
from datamodules.degradations.white_noise import normal_field
from mrdiff.photo import read_rgb
from tests.datamodules.srgb import to_linear, to_srgb
from tests.places import SHARED

DATA = SHARED / "data"

ONE = (1.0, 1.0)
NONE = (0.0, 0.0)


def _dark(
    exposure: float,
    *,
    highlights: tuple[float, float] = ONE,
    cast: tuple[float, float] = ONE,
    shot: tuple[float, float] = NONE,
    read: tuple[float, float] = NONE,
) -> LowLight:
    """One exposure, and nothing else than what is asked for."""
    return LowLight(
        exposure=(exposure, exposure),
        uneven=NONE,
        highlights=highlights,
        cast=cast,
        shot=shot,
        read=read,
    )


def _degraded(low_light: LowLight, image: Tensor, seed: int = 0) -> Tensor:
    return low_light.degrade(image, torch.Generator().manual_seed(seed))


def _photo(channels: int = 3) -> Tensor:
    values = np.random.default_rng(0).integers(0, 256, (channels, 40, 56))
    return torch.from_numpy(values).float() / 255


def _slow_linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _slow_srgb(light: float) -> float:
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def test_the_curves_are_srgb_and_undo_each_other() -> None:
    levels = torch.arange(256, dtype=torch.float64) / 255
    expected = torch.tensor([_slow_linear(float(v)) for v in levels], dtype=torch.float64)
    assert torch.allclose(to_linear(levels), expected, atol=1e-12)
    assert torch.allclose(to_srgb(to_linear(levels)), levels, atol=1e-7)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 5e-7), (torch.float64, 4e-8)])
def test_the_fast_curves_are_the_standard(dtype: torch.dtype, error: float) -> None:
    values = torch.linspace(0, 1, 30_000, dtype=torch.float64).reshape(3, -1)
    for ours, theirs, scale in ((srgb.to_linear, to_linear, 1), (srgb.to_srgb, to_srgb, 4)):
        exact = theirs(scale * values)
        assert torch.allclose(ours(scale * values.to(dtype)).double(), exact, atol=error, rtol=0)


@pytest.mark.parametrize("white", [1.0, 4.0])
@pytest.mark.parametrize("exposure", [-1.0, -3.5, -6.0])
def test_without_noise_it_is_its_formula(exposure: float, white: float) -> None:
    levels = (torch.arange(256).float() / 255).reshape(1, 16, 16)
    ours = _degraded(_dark(exposure, highlights=(white, white)), levels).flatten()
    for value, got in zip(levels.flatten().tolist(), ours.tolist(), strict=True):
        light = _slow_linear(value)
        light = light / (1 - light * (1 - 1 / white)) * 2**exposure
        assert got == pytest.approx(min(_slow_srgb(light), 1), abs=0.51 / 255)


def test_no_strength_changes_nothing() -> None:
    for channels in (1, 3):
        image = _photo(channels)
        for seed in range(3):
            assert torch.equal(_degraded(_dark(0.0), image, seed), image)
            fine = image.double().mul(255).round().div(255)
            assert torch.equal(_degraded(_dark(0.0), fine, seed), fine)


def test_a_stop_halves_the_light() -> None:
    image = torch.full((1, 16, 16), 200 / 255)
    lights = [float(to_linear(_degraded(_dark(-stops), image)).mean()) for stops in (0.0, 1.0, 2.0)]
    assert lights[0] / lights[1] == pytest.approx(2, rel=0.02)
    assert lights[1] / lights[2] == pytest.approx(2, rel=0.02)


def test_the_cast_is_one_factor_a_channel_within_its_range_and_none_for_grey() -> None:
    cast = (0.8, 1.25)
    image, plain = torch.full((3, 16, 16), 200 / 255), float(to_linear(torch.tensor(200 / 255)))
    factors = []
    for seed in range(40):
        light = to_linear(_degraded(_dark(-1.0, cast=cast), image, seed)) * 2 / plain
        assert float(light.std((1, 2)).max()) < 1e-6
        factors += light.mean((1, 2)).tolist()
        grey = _degraded(_dark(-1.0, cast=cast), image[:1], seed)
        assert torch.equal(grey, _degraded(_dark(-1.0), image[:1]))
    assert min(factors) == pytest.approx(cast[0], rel=0.05)
    assert max(factors) == pytest.approx(cast[1], rel=0.05)
    assert float(np.mean(np.log(factors))) == pytest.approx(0, abs=0.04)


def test_a_lamp_lights_half_of_the_picture_and_nothing_beyond_the_truth() -> None:
    image, plain = torch.full((1, 200, 200), 200 / 255), float(to_linear(torch.tensor(200 / 255)))
    lit, brightest = [], []
    for seed in range(20):
        low_light = replace(_dark(-4.0), uneven=(3.0, 3.0))
        stops = (to_linear(_degraded(low_light, image, seed)) / plain).log2()
        assert float(stops.min()) == pytest.approx(-4, abs=0.1)
        lit.append(float((stops > -3.9).float().mean()))
        brightest.append(float(stops.max()))
    assert np.mean(lit) == pytest.approx(0.5, abs=0.15)
    assert max(brightest) == pytest.approx(0, abs=0.02)
    assert np.median(brightest) > -2


@pytest.mark.parametrize(("shot", "read"), [(1e-3, 0.0), (0.0, 0.01), (1e-3, 0.02)])
def test_noise_in_linear_light_has_its_mean_and_variance(shot: float, read: float) -> None:
    low_light = _dark(-2.0, shot=(shot, shot), read=(read, read))
    light = to_linear(_degraded(low_light, torch.ones(3, 160, 160)))
    assert float(light.mean()) == pytest.approx(0.25, rel=0.01)
    assert float(light.var()) == pytest.approx(shot * 0.25 + read**2, rel=0.03)


@pytest.mark.parametrize("rate", [0.05, 0.4, 1.4, 2.0, 4.0, 10.0, 100.0, 1000.0])
def test_photons_are_of_poisson(rate: float) -> None:
    size, truth = 60_000, stats.poisson(rate)
    normal = normal_field(torch.tensor([5]), (size,))[0]
    counts = photons(torch.full((size,), rate), normal).double().numpy()
    assert counts.mean() == pytest.approx(rate, abs=4 * (rate / size) ** 0.5)
    assert counts.var() == pytest.approx(rate, rel=0.03 + 0.02 * rate**-0.5)
    assert stats.skew(counts) == pytest.approx(rate**-0.5, abs=0.05 + 0.05 * rate**-0.5)
    ends = np.unique(truth.ppf(np.linspace(0.01, 0.99, 30)))  # the last counts of some bins
    seen = np.histogram(counts, bins=[-0.5, *(ends + 0.5), np.inf])[0]
    expected = size * np.diff([0, *truth.cdf(ends), 1])
    assert stats.chisquare(seen, expected).pvalue > 1e-3


def test_photons_of_none_to_very_many() -> None:
    rates = torch.tensor([0.0, 1.4, 1e12])
    normal = torch.tensor([-4.0, 0.0, 4.0])
    counts = photons(rates[:, None].expand(3, 3), normal.expand(3, 3))
    assert counts[0].tolist() == [0, 0, 0]
    assert counts[1].tolist() == [0, 1, 8]
    assert torch.allclose(counts[2], rates[2] + 1e6 * normal, rtol=1e-7)


def test_few_photons_are_counted() -> None:
    # Eight photons in white, one after three stops: a share exp(-1) of the pixels sees none.
    dark = _degraded(_dark(-3.0, shot=(1 / 8, 1 / 8)), torch.ones(3, 120, 120))
    assert float((dark == 0).float().mean()) == pytest.approx(np.exp(-1), abs=0.01)
    counts = to_linear(dark) * 8
    assert torch.allclose(counts, counts.round(), atol=0.08)


@pytest.mark.parametrize(
    "wrong",
    [
        {"exposure": (-1.0, -3.0)},
        {"exposure": (-3.0, 1.0)},
        {"uneven": (-1.0, 2.0)},
        {"highlights": (0.5, 2.0)},
        {"cast": (0.0, 1.0)},
        {"shot": (-1e-4, 1e-4)},
        {"read": (0.0, 2.0)},
    ],
)
def test_impossible_ranges_are_refused_by_name(wrong: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} "):
        LowLight(**wrong)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the test photos in ../shared/data")
def test_default_darkness_is_that_of_real_photographs() -> None:
    folders = (DATA / "lq_only" / "low-light", DATA / "paired" / "low-light" / "LQ")
    # The median: a mean is that of the lamps and windows.
    theirs = [float(read_rgb(path).median()) for folder in folders for path in folder.iterdir()]
    generator = torch.Generator().manual_seed(0)
    clean = [read_rgb(path) for path in sorted((DATA / "clean" / "val").iterdir())[::4]]
    clean = [image[:, 60:220, 60:220] for image in clean]
    ours = [float(LowLight().degrade(c, generator).median()) for _ in range(4) for c in clean]
    assert np.median(ours) == pytest.approx(np.median(theirs), rel=0.4)
    assert np.quantile(ours, 0.1) < np.quantile(theirs, 0.2)
    assert np.quantile(ours, 0.9) > np.quantile(theirs, 0.8)
