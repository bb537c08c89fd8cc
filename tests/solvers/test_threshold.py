"""Thresholding of x0, and the temperature of the noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mrdiff import MRProcess, MRSampler, Prediction, make_sampler
from mrdiff.solvers.corrections import ThresholdedDenoiser
from mrdiff.solvers.noise import named_noise
from tests.oracles import GaussianOracle

F64 = torch.float64
MU = torch.full((2, 3, 8, 8), 0.5, dtype=F64)


class Wild:
    """Predicts 0.5 everywhere, but for a few values per image far outside [0, 1]."""

    process = MRProcess()

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        del t, mu
        x0 = torch.full_like(x, 0.5)
        x0[0, 0, 0, 0], x0[1, 0, 0, :2] = 7.0, -0.3
        return Prediction(x0, torch.full_like(x, torch.nan))


def test_the_percentile_sets_the_range_of_each_image() -> None:
    t = torch.tensor(0.5, dtype=F64)
    for percentile in (0.0, 0.5, 0.995):  # fewer outliers than the percentile spares: all clipped
        x0 = ThresholdedDenoiser(Wild(), percentile)(MU, t, MU).x0
        assert x0[0].max() == (1.0 if percentile < 0.995 else x0[0].max())
        assert x0[1].min() >= -0.3
        assert x0[:, 1:].eq(0.5).all()
    assert ThresholdedDenoiser(Wild(), 1.0)(MU, t, MU).x0[0].max() == 7.0
    assert ThresholdedDenoiser(Wild(), 0.0)(MU, t, MU).x0[1].min() == 0.0


def test_eps_agrees_with_the_clipped_image() -> None:
    t = torch.tensor(0.5, dtype=F64)
    x = MU + 0.1
    x0, eps = ThresholdedDenoiser(Wild(), 0.0)(x, t, MU)
    assert torch.allclose(Wild.process.marginal(x0, MU, t, eps), x)


def test_images_in_range_are_not_touched() -> None:
    oracle = GaussianOracle(MRProcess(), mean=0.1, std=0.05)
    mu = MU[:1] - 0.2
    plain, clipped = (
        MRSampler(nfe=5, threshold=threshold)(oracle, mu, noise=torch.Generator().manual_seed(0))
        for threshold in (None, 0.0)
    )
    assert torch.allclose(plain, clipped, atol=1e-12)


def test_the_result_stays_in_range_without_a_percentile() -> None:
    oracle = GaussianOracle(MRProcess(), mean=0.4, std=0.2)  # leaves [0, 1] by itself
    noise = torch.Generator().manual_seed
    assert MRSampler(nfe=5)(oracle, MU, noise=noise(0)).max() > 1.01
    clipped = MRSampler(nfe=5, threshold=0.0)(oracle, MU, noise=noise(0))
    assert 0 <= clipped.min() <= clipped.max() <= 1


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
def test_a_percentile_outside_its_range_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        MRSampler(threshold=threshold)
    with pytest.raises(ValueError, match="threshold"):
        ThresholdedDenoiser(Wild(), threshold)


@pytest.mark.parametrize(
    "name",
    ["mr-ode-2", "mr-sde-2", "posterior", "euler-sde", "heun-ode"],
)
def test_temperature_scales_every_noise(name: str) -> None:
    """For a Gaussian all solvers are linear: the spread is the temperature times that at 1."""
    oracle = GaussianOracle(MRProcess(), mean=0.3)
    noise = named_noise(0, ["a", "b"])
    ends = {
        tau: make_sampler(name, nfe=6, temperature=tau)(oracle, MU, noise=noise)
        for tau in (0.0, 0.25, 1.0)
    }
    assert (ends[0.0] - ends[0.0].mean()).abs().max() < 1e-12
    assert torch.allclose(ends[0.25] - ends[0.0], 0.25 * (ends[1.0] - ends[0.0]))


def test_a_negative_temperature_is_refused() -> None:
    for name in ("mr-ode-2", "posterior"):
        with pytest.raises(ValueError, match="temperature"):
            make_sampler(name, nfe=2, temperature=-0.1)
