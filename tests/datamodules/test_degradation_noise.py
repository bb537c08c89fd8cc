"""Noise: its mean, variance and correlations against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.degradations import Degradation
from datamodules.degradations.noise import GaussianNoise, Noise, PoissonGaussianNoise
from mrdiff.photo import read_rgb
from tests.places import SHARED

NOISY = SHARED / "data" / "paired" / "noisy"


def _flat(value: float, channels: int = 3, size: int = 200) -> Tensor:
    return torch.full((channels, size, size), round(value * 255) / 255)


def _added(degradation: Degradation, image: Tensor, seed: int = 0) -> Tensor:
    return degradation.degrade(image, torch.Generator().manual_seed(seed)) - image


def _deviation(variance: float) -> float:
    """Standard deviation in 1/255 of noise rounded to 8 bits, which adds 1/12 of a level."""
    return (variance * 255**2 + 1 / 12) ** 0.5


@pytest.mark.parametrize("sigma", [2.0, 15.0, 30.0])
def test_gaussian_noise_has_its_mean_and_deviation(sigma: float) -> None:
    added = _added(GaussianNoise(sigma=(sigma, sigma)), _flat(0.5)) * 255
    assert float(added.mean()) == pytest.approx(0, abs=0.02 * sigma)
    assert float(added.std()) == pytest.approx(_deviation((sigma / 255) ** 2), rel=0.02)


def test_gaussian_noise_is_white_and_normal() -> None:
    added = _added(GaussianNoise(sigma=(20.0, 20.0)), _flat(0.5)) * 255 / 20
    assert float((added[:, 1:] * added[:, :-1]).mean()) == pytest.approx(0, abs=0.015)
    assert float((added[0] * added[1]).mean()) == pytest.approx(0, abs=0.02)
    assert float(added.pow(4).mean()) == pytest.approx(3, rel=0.05)


def test_sigma_covers_its_range_uniformly() -> None:
    noise, image = GaussianNoise(sigma=(5.0, 50.0)), _flat(0.5, channels=1, size=40)
    sigmas = [255 * float(_added(noise, image, seed).std()) for seed in range(300)]
    assert np.quantile(sigmas, [0.1, 0.5, 0.9]) == pytest.approx([9.5, 27.5, 45.5], abs=4)


def test_only_per_channel_noise_differs_between_channels() -> None:
    for per_channel, spread in ((False, 1.1), (True, 1.3)):
        noise = GaussianNoise(sigma=(2.0, 40.0), per_channel=per_channel)
        ratios = []
        for seed in range(20):
            deviations = _added(noise, _flat(0.5, size=60), seed).std((1, 2))
            ratios.append(float(deviations.max() / deviations.min()))
        assert (np.median(ratios) > spread) == per_channel


@pytest.mark.parametrize("grain", [0.0, 0.8])
@pytest.mark.parametrize("value", [0.2, 0.4, 0.8])
def test_poisson_gaussian_noise_has_variance_a_x_plus_b(value: float, grain: float) -> None:
    a, b = 4e-3, 2e-4
    noise = PoissonGaussianNoise(a=(a, a), b=(b, b), grain=(grain, grain), shared=(0.5, 0.5))
    image = _flat(value)
    added = torch.stack([_added(noise, image, seed) for seed in range(4)]) * 255
    expected = _deviation(a * float(image[0, 0, 0]) + b)
    assert float(added.std()) == pytest.approx(expected, rel=0.03)
    assert float(added.mean()) == pytest.approx(0, abs=0.05 * expected)


def test_variance_follows_the_signal_within_one_image() -> None:
    steps = torch.tensor([0.2, 0.4, 0.6]).mul(255).round().div(255)
    image = steps.repeat_interleave(100).expand(1, 200, 300).contiguous()
    noise = PoissonGaussianNoise(a=(5e-3, 5e-3), b=(0.0, 0.0), grain=(0.0, 0.0), shared=(0.0, 0.0))
    added = _added(noise, image)[0].unflatten(1, (3, 100))
    assert torch.allclose(added.var((0, 2)) / steps, torch.full((3,), 5e-3), rtol=0.05)


def test_grain_and_shared_are_the_correlations_they_promise() -> None:
    grain, shared = 0.8, 0.6
    noise = PoissonGaussianNoise(
        a=(0.0, 0.0), b=(4e-3, 4e-3), grain=(grain, grain), shared=(shared, shared)
    )
    added = torch.stack([_added(noise, _flat(0.5), seed) for seed in range(4)]).transpose(0, 1)
    variance = added.square().mean()
    for distance in (1, 2):  # a smoothed white noise correlates as the filter with itself
        expected = np.exp(-(distance**2) / (4 * grain**2))
        for axis in (2, 3):
            length = added.shape[axis] - distance
            pair = added.narrow(axis, 0, length) * added.narrow(axis, distance, length)
            assert float(pair.mean() / variance) == pytest.approx(expected, abs=0.03)
    assert float((added[0] * added[2]).mean() / variance) == pytest.approx(shared, abs=0.03)


@pytest.mark.parametrize(
    ("weights", "kind"),
    [
        ((1.0, 0.0, 0.0), GaussianNoise()),
        ((0.0, 1.0, 0.0), GaussianNoise(per_channel=True)),
        ((0.0, 0.0, 1.0), PoissonGaussianNoise()),
    ],
)
def test_noise_of_one_weight_is_that_class(
    weights: tuple[float, float, float], kind: Degradation
) -> None:
    image, noise = _flat(0.4, size=32), Noise(weights=weights)
    generator, other = (torch.Generator().manual_seed(5) for _ in range(2))
    noise.choose(other)  # the choice is drawn first
    assert torch.equal(noise.degrade(image, generator), kind.degrade(image, other))


def test_weights_are_relative_frequencies() -> None:
    # Noise in white alone differs from none by a = b = 0 in the camera's part.
    noise = Noise(weights=(1.0, 0.0, 3.0), sigma=(9.0, 9.0), a=(0.0, 0.0), b=(0.0, 0.0))
    image = _flat(0.5, size=8)
    noisy = [bool(_added(noise, image, seed).any()) for seed in range(400)]
    assert np.mean(noisy) == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize(
    "nothing",
    [
        GaussianNoise(sigma=(0.0, 0.0)),
        PoissonGaussianNoise(a=(0.0, 0.0), b=(0.0, 0.0)),
        Noise(sigma=(0.0, 0.0), a=(0.0, 0.0), b=(0.0, 0.0)),
    ],
    ids=lambda noise: type(noise).__name__,
)
def test_noise_of_no_strength_changes_nothing(nothing: Degradation) -> None:
    values = np.random.default_rng(0).integers(0, 256, (3, 40, 56))
    image = torch.from_numpy(values).float() / 255
    for seed in range(5):
        assert not _added(nothing, image, seed).any()


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (GaussianNoise, {"sigma": (50.0, 5.0)}),
        (GaussianNoise, {"sigma": (-1.0, 5.0)}),
        (PoissonGaussianNoise, {"a": (0.0, 2.0)}),
        (PoissonGaussianNoise, {"b": (-1e-3, 0.0)}),
        (PoissonGaussianNoise, {"grain": (0.0, 9.0)}),
        (PoissonGaussianNoise, {"shared": (0.0, 1.1)}),
        (Noise, {"sigma": (50.0, 5.0)}),
        (Noise, {"weights": (0.0, 0.0, 0.0)}),
        (Noise, {"weights": (1.0, -1.0, 1.0)}),
        (Noise, {"weights": (1.0, float("nan"), 1.0)}),
    ],
)
def test_impossible_ranges_are_refused_by_name(
    kind: type[Degradation], wrong: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} "):
        kind(**wrong)


@pytest.mark.skipif(not NOISY.is_dir(), reason="needs the benchmark pairs in ../shared/data")
def test_default_noise_reaches_from_real_cameras_to_the_gaussian_benchmark() -> None:
    noise, generator = Noise(), torch.Generator().manual_seed(0)
    ours, theirs = [], []
    for path in sorted((NOISY / "GT").iterdir())[::4]:
        clean = read_rgb(path)[:, :256, :256]
        noisy = read_rgb(next((NOISY / "LQ").glob(f"{path.stem}.*")))[:, :256, :256]
        theirs.append(float((noisy - clean).square().mean()) ** 0.5)
        for _ in range(12):
            added = noise.degrade(clean, generator) - clean
            ours.append(float(added.square().mean()) ** 0.5)
    assert np.quantile(ours, 0.97) > 0.8 * max(theirs)
    assert np.quantile(ours, 0.15) < 1.3 * np.median(theirs)
    assert min(ours) < min(theirs)
