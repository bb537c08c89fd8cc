"""The closed-form denoisers against brute force, and what they say of temperature."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mrdiff import MRProcess, MRSampler
from mrdiff.solvers.oracle import (
    GaussianOracle,
    MixtureOracle,
    midpoints,
    stratified_prior,
    wasserstein2,
)
from mrdiff.solvers.timegrid import uniform_log_snr

F64 = torch.float64
PROCESS = MRProcess()
THREE = ((-0.3, 0.05, 0.35), (0.03, 0.08, 0.02), (0.3, 0.45, 0.25))


def three() -> MixtureOracle:
    return MixtureOracle(PROCESS, *THREE)


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=F64)


@st.composite
def mixtures(draw: st.DrawFn) -> MixtureOracle:
    count = draw(st.integers(1, 4))
    each = {"min_size": count, "max_size": count}
    means = draw(st.lists(st.floats(-0.5, 0.5), **each))
    stds = draw(st.lists(st.floats(0.01, 0.3), **each))
    weights = draw(st.lists(st.floats(0.1, 2), **each))
    return MixtureOracle(PROCESS, means, stds, weights)


def by_quadrature(oracle: MixtureOracle, y: float, t: float) -> float:
    """E[y0 | y_t = y] as a ratio of two sums over a fine grid of y0."""
    y0 = torch.linspace(-2.5, 2.5, 100_001, dtype=F64)
    density = torch.zeros_like(y0)
    for mean, std, weight in zip(oracle.means, oracle.stds, oracle.weights, strict=True):
        density += weight / std * torch.exp(-0.5 * ((y0 - mean) / std) ** 2)
    alpha, sigma = PROCESS.alpha(number(t)), PROCESS.sigma(number(t))
    joint = density * torch.exp(-0.5 * ((y - alpha * y0) / sigma) ** 2)
    return float((joint * y0).sum() / joint.sum())


@settings(max_examples=40, deadline=None)
@given(mixtures(), st.floats(-0.5, 0.5), st.floats(0.1, 1))
def test_mixture_is_bayes_rule(oracle: MixtureOracle, y: float, t: float) -> None:
    mu = torch.full((1, 1, 1, 1), 0.4, dtype=F64)
    x0, eps = oracle(mu + y, number(t), mu)
    expected = by_quadrature(oracle, y, t)
    assert float(x0 - mu) == pytest.approx(expected, abs=1e-7)
    alpha, sigma = PROCESS.alpha(number(t)), PROCESS.sigma(number(t))
    assert float(alpha * (x0 - mu) + sigma * eps) == pytest.approx(y, abs=1e-12)


def test_mixture_of_one_is_the_gaussian() -> None:
    x, mu = torch.randn(2, 3, 5, 7, dtype=F64), torch.rand(2, 3, 5, 7, dtype=F64)
    t = torch.tensor([0.2, 0.9], dtype=F64)
    one = MixtureOracle(PROCESS, [0.3], [0.15], [2.0])(x, t, mu)
    gaussian = GaussianOracle(PROCESS)(x, t, mu)
    assert torch.allclose(one.x0, gaussian.x0, atol=1e-13)
    assert torch.allclose(one.eps, gaussian.eps, atol=1e-12)


@pytest.mark.parametrize("make", [three, lambda: GaussianOracle(PROCESS)])
def test_one_time_for_all_images_or_one_each(make: Callable[[], MixtureOracle]) -> None:
    x, mu = torch.randn(3, 2, 4, 4, dtype=F64), torch.rand(3, 2, 4, 4, dtype=F64)
    t = torch.tensor([0.1, 0.5, 1.0], dtype=F64)
    together = make()(x, t, mu)
    for i in range(3):
        alone = make()(x[i : i + 1], t[i], mu[i : i + 1])
        assert torch.allclose(together.x0[i], alone.x0[0], atol=1e-14)
        assert torch.allclose(together.eps[i], alone.eps[0], atol=1e-12)


@pytest.mark.parametrize("t", [1e-6, 1e-3, 0.5, 1.0])
def test_float32_is_float64_rounded_and_far_out_stays_finite(t: float) -> None:
    mu = torch.zeros(1, 1, 1, 5, dtype=F64)
    x = torch.tensor([-30.0, -0.3, 0.0, 0.2, 30.0], dtype=F64).reshape(1, 1, 1, 5)
    wide = three()(x, number(t), mu)
    narrow = three()(x.float(), number(t).float(), mu.float())
    assert narrow.x0.dtype == narrow.eps.dtype == torch.float32
    assert torch.isfinite(narrow.x0).all()
    assert torch.isfinite(narrow.eps).all()
    assert torch.allclose(narrow.x0.double(), wide.x0, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(mixtures(), st.floats(1e-9, 1 - 1e-9))
def test_cdf_of_the_quantile_is_the_share(oracle: MixtureOracle, u: float) -> None:
    """To the spacing of float64 around the quantile, times the density there."""
    y = oracle.quantile(number(u))
    step = 1e-15
    assert float(oracle.cdf(y - step)) - 1e-15 <= u <= float(oracle.cdf(y + step)) + 1e-15


@settings(max_examples=20, deadline=None)
@given(mixtures(), st.floats(-2, 2))
def test_quantile_of_the_cdf_is_the_place(oracle: MixtureOracle, share: float) -> None:
    """Within two standard deviations of the first component, where the density is not small."""
    y = oracle.means[0] + share * oracle.stds[0]
    assert float(oracle.quantile(oracle.cdf(number(y)))) == pytest.approx(y, abs=1e-12)


def test_quantiles_grow_and_end_at_infinity() -> None:
    u = torch.tensor([0.0, 1e-12, 0.1, 0.5, 0.9, 1.0], dtype=F64)
    quantiles = three().quantile(u)
    assert (quantiles.diff() > 0).all()
    assert quantiles[0] == -math.inf
    assert quantiles[-1] == math.inf


@pytest.mark.parametrize("make", [three, lambda: GaussianOracle(PROCESS)])
def test_wasserstein_of_exact_and_of_shifted_quantiles(make: Callable[[], MixtureOracle]) -> None:
    exact = make().quantile(midpoints(1000))
    shuffled = exact[torch.randperm(1000)].reshape(1, 1, 25, 40)
    assert wasserstein2(shuffled, make()) < 1e-14
    assert wasserstein2(shuffled + 0.07, make()) == pytest.approx(0.07, rel=1e-12)


def test_wasserstein_of_two_gaussians() -> None:
    """W2² = (difference of means)² + (difference of stds)², to the cut tails of 10^5 samples."""
    narrow = GaussianOracle(PROCESS, mean=0.1, std=0.05).quantile(midpoints(100_000))
    expected = math.hypot(0.2, 0.1)
    assert wasserstein2(narrow, GaussianOracle(PROCESS)) == pytest.approx(expected, rel=1e-4)


def test_mixture_flow_is_what_the_solver_approaches() -> None:
    oracle, noise = three(), stratified_prior(64)
    mu = torch.full((1, 1, 8, 8), 0.5, dtype=F64)
    exact = mu + oracle.flow_end(PROCESS.sigma_max * noise(0, mu.shape))
    grid = partial(uniform_log_snr, sigma_end=5e-5)  # stopping costs sigma²
    coarse, fine = (
        float((MRSampler(nfe=n, order=2, grid=grid)(oracle, mu, noise=noise) - exact).abs().max())
        for n in (200, 400)
    )
    assert fine < 2e-3
    assert coarse > 3 * fine


@pytest.mark.parametrize("tau", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("nfe", [1, 2, 5, 20])
def test_temperature_scales_the_std_of_gaussian_data_exactly(tau: float, nfe: int) -> None:
    """At any NFE: the solver is linear in the state. The mean does not move."""
    mu = torch.zeros(1, 1, 8, 8, dtype=F64)
    noise = stratified_prior(64)
    full, lowered = (
        MRSampler(nfe=nfe, temperature=t)(GaussianOracle(PROCESS), mu, noise=noise)
        for t in (1.0, tau)
    )
    assert float(lowered.std()) == pytest.approx(tau * float(full.std()), abs=1e-14)
    assert float(lowered.mean()) == pytest.approx(float(full.mean()), abs=1e-14)


def test_variance_at_a_temperature_is_its_square_times_the_exact_one() -> None:
    """But for alpha_1² std² / sigma_max² = 1.5e-5 of the variance that the prior lacks."""
    mu, tau = torch.zeros(1, 1, 256, 256, dtype=F64), 0.6
    noise = stratified_prior(mu.numel())
    sampler = MRSampler(nfe=200, order=3, temperature=tau)
    y0 = sampler(GaussianOracle(PROCESS), mu, noise=noise)
    assert float(y0.var()) == pytest.approx(tau**2 * 0.15**2, rel=5e-4)


def test_zero_temperature_leaves_one_point_of_a_mixture() -> None:
    """The flow is monotone: the prior's median goes to F_0^-1(F_1(0)), about the data's median."""
    oracle = three()
    mu = torch.full((1, 1, 8, 8), 0.5, dtype=F64)
    sampler = MRSampler(nfe=300, order=3, temperature=0.0)
    y0 = sampler(oracle, mu, noise=stratified_prior(64)) - mu
    assert float(y0.max() - y0.min()) == 0
    assert float(y0.mean()) == pytest.approx(float(oracle.flow_end(number(0.0))), abs=1e-5)
    assert float(y0.mean()) == pytest.approx(float(oracle.quantile(number(0.5))), abs=1e-3)
    spread = wasserstein2(oracle.quantile(midpoints(1000)) * 0 + y0.mean(), oracle)
    assert spread > 0.2  # all of the modes at -0.3 and 0.35 is lost


@pytest.mark.parametrize(
    ("means", "stds", "weights"),
    [([], [], []), ([0.0], [0.1, 0.2], [1.0]), ([0.0], [0.0], [1.0]), ([0.0], [0.1], [-1.0])],
)
def test_impossible_mixtures_are_refused(means: list, stds: list, weights: list) -> None:
    with pytest.raises(ValueError, match="mixture"):
        MixtureOracle(PROCESS, means, stds, weights)


def test_the_tails_of_the_mixture_flow_are_finite_below() -> None:
    oracle = MixtureOracle(MRProcess(), (-0.3, 0.0, 0.3), (0.05, 0.05, 0.05), (1, 1, 1))
    far = torch.tensor([-1.7, -1.2], dtype=torch.float64)
    assert torch.isfinite(oracle.flow_end(far)).all()
