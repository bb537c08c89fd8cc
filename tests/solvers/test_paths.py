"""Every path converges, keeps its distribution, and has the posterior as its step of eta 1."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mrdiff import GaussianPath, InDI, MRSampler
from mrdiff.solvers.clock import Clock, ClockName
from mrdiff.solvers.multistep import plan_steps
from mrdiff.solvers.oracle import GaussianOracle
from tests.oracles import PATHS, fitted_slope
from tests.solvers.test_authors import F64, MU, TIMES, X0, X, ours

NOISY = {name: path for name, path in PATHS.items() if path.noise}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_eta_1_is_the_posterior(path: GaussianPath) -> None:
    """Bayes' rule, multiplied out by precision, is what both the step and the path have."""
    for s, t in TIMES:
        mean, std = path.posterior(X, X0, MU, s, t)
        same, its = ours(path, s, t, 1)
        assert float((same - mean).abs().max()) < 1e-12
        assert its == pytest.approx(float(std), abs=1e-12)
        (alpha_s, sigma_s), (alpha, sigma) = (map(float, path.shares(u)) for u in (s, t))
        kept = alpha_s / alpha
        precision = 1 / sigma**2 + kept**2 / (sigma_s**2 - kept**2 * sigma**2)
        of_y = kept / (sigma_s**2 - kept**2 * sigma**2) / precision
        bayes = path.centred(MU, t) + of_y * (X - path.centred(MU, s))
        bayes = bayes + alpha / (sigma**2 * precision) * (X0 - MU)
        assert float((bayes - mean).abs().max()) < 1e-10
        assert its == pytest.approx(path.noise * precision**-0.5, abs=1e-10)


def predicted(path: GaussianPath, times: Tensor, std: float) -> tuple[Tensor, ...]:
    """The oracle's y0 and eps at every time, which are affine in the state: y = 0, then a slope."""
    oracle, mu = GaussianOracle(path, std=std), times.new_zeros(len(times), 1)
    zero, one = (oracle(mu + y, times, mu) for y in (0.0, 1.0))
    return tuple(q.flatten() for q in (zero.x0, one.x0 - zero.x0, zero.eps, one.eps - zero.eps))


def flow_error(path: GaussianPath, clock: ClockName, order: int, count: int) -> float:
    """The largest between t = 0.9 and 0.1, from exact states at the first ``order`` times.

    The start is left out because it is of low order, and a path whose alpha ends at 0 keeps its
    error. The standardized state (y - alpha mean) / spread is constant along the exact flow.
    """
    mean, std = 0.3, 0.15
    start, end = path.log_snr(torch.tensor([0.9, 0.1], dtype=F64)).tolist()
    times = path.t_of_log_snr(torch.linspace(start, end, count + 1, dtype=F64))
    alpha, sigma = path.shares(times)
    spread = torch.sqrt(alpha**2 * std**2 + sigma**2)
    z = np.array([-1.5, -0.4, 0.3, 1.2])
    exact = (alpha * mean)[:, None].numpy() + spread[:, None].numpy() * z
    columns = [column.tolist() for column in predicted(path, times, std)]
    steps = plan_steps(path, times.tolist(), order=order, eta=0, clock=Clock.named(clock))
    y, history, error = exact[0], list[np.ndarray](), 0.0
    for i, (step, a, b, c, d) in enumerate(zip(steps, *(q[:-1] for q in columns), strict=True)):
        y = exact[i] if i < order else y
        history.insert(0, step.a * (a + b * y) + step.b * (c + d * y))
        y = step.decay * y + sum(w * q for w, q in zip(step.weights, history, strict=False))
        error = max(error, float(np.abs(y - exact[i + 1]).max()) if i + 1 >= order else 0.0)
    return error


# To the equation a cold path is one of noise sigma, so it is here too: a smooth prediction to
# follow. What such a path's own predictions are is below.
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("clock", ["data", "noise", "velocity"])
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_every_order_is_reached(path: GaussianPath, clock: ClockName, order: int) -> None:
    counts = [160, 226, 320]
    errors = [flow_error(path, clock, order, count) for count in counts]
    assert fitted_slope(counts, errors) >= order - 0.15, errors


# The error of order 2 grows with the rate 1 + eta².
@pytest.mark.parametrize(("eta", "nfe"), [(0.0, 150), (0.5, 150), (1.0, 150), (2.0, 400)])
@pytest.mark.parametrize("path", NOISY.values(), ids=NOISY)
def test_the_distribution_is_kept_at_every_eta(path: GaussianPath, eta: float, nfe: int) -> None:
    """Mean and variance, exactly: within 3 standard errors of 10^5 draws of the data's.

    The result is affine in the noise. The first pixel has none of it and is the mean, each other
    has that of one step alone, and the squares of what they make of it add up to the variance.
    """
    mu = torch.full((nfe + 2, 1, 1, 1), 0.4, dtype=F64)

    def noise(step: int, shape: tuple[int, ...]) -> Tensor:
        one = torch.zeros(shape, dtype=F64)
        one[step + 1] = 1.0
        return one

    oracle, sampler = GaussianOracle(path), MRSampler(nfe=nfe, order=2, eta=eta)
    y0 = sampler(oracle, mu, noise=noise).flatten() - 0.4  # type: ignore[arg-type]
    mean, variance = float(y0[0]), float(((y0[1:] - y0[0]) ** 2).sum())
    # What the last call says of its state is sure of all but what that state's noise hides.
    alpha, sigma = map(float, path.shares(float(sampler.times(path)[-2])))
    expected = oracle.std**2 / (1 + (sigma / (alpha * oracle.std)) ** 2)
    assert abs(mean - oracle.mean) < 3 * oracle.std / math.sqrt(1e5)
    assert abs(variance / expected - 1) < 3 * math.sqrt(2 / 1e5)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clock", ["data", "noise"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_cold_path_keeps_to_its_line(order: int, clock: ClockName, eta: float) -> None:
    """Without noise y = alpha y0 and eps = 0 on the way from x0, so all steps are exact."""
    path, times = InDI(), torch.linspace(0.95, 0.05, 8, dtype=F64)
    steps = plan_steps(path, times.tolist(), order=order, eta=eta, clock=Clock.named(clock))
    y0, history = (X0 - MU).numpy(), list[np.ndarray]()
    y = float(path.alpha(0.95)) * y0
    for step, t in zip(steps, times[1:].tolist(), strict=True):
        history.insert(0, step.a * y0)
        y = step.decay * y + sum(w * q for w, q in zip(step.weights, history, strict=False))
        assert np.abs(y - float(path.alpha(t)) * y0).max() < 1e-12


def test_a_cold_path_has_no_noise() -> None:
    oracle, mu = GaussianOracle(InDI()), torch.full((1, 1, 4, 4), 0.4)
    sampler = MRSampler(nfe=5, eta=1.0)
    draws = [sampler(oracle, mu, noise=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    assert torch.equal(*draws)
    assert torch.equal(InDI().prior(mu, torch.randn_like(mu)), mu)
