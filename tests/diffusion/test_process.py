"""Schedules and process: closed forms against quadrature, inverses, Bayes' rule."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mrdiff import ConstantTheta, CosineTheta, LinearTheta, MRProcess, TabulatedTheta
from tests.oracles import CONTINUOUS, SCHEDULES

F64 = torch.float64
times = st.floats(1e-3, 1.0)
names = st.sampled_from(sorted(SCHEDULES))


def tensor(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=F64)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("alpha_min", [0.005, 0.01, 0.3])
def test_alpha_ends_at_alpha_min(name: str, alpha_min: float) -> None:
    process = MRProcess(type(CONTINUOUS[name])(alpha_min))
    ends = process.alpha(torch.tensor([0.0, 1.0], dtype=F64))
    assert ends.tolist() == pytest.approx([1.0, alpha_min], rel=1e-12)


def test_cosine_integral_is_the_quadrature_of_its_theta() -> None:
    s = 0.008
    u = lambda t: (t + s) / (1 + s) * math.pi / 2  # noqa: E731
    theta = lambda t: 1 - torch.cos(u(t)) ** 2 / math.cos(u(0.0)) ** 2  # noqa: E731
    grid = torch.linspace(0, 1, 200_001, dtype=F64)
    total = torch.cumulative_trapezoid(theta(grid), grid)
    expected = -math.log(0.005) * total / total[-1]
    ours = CosineTheta(0.005).integral(grid[1:])
    assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-9)
    assert torch.allclose(ours[1000:], expected[1000:], rtol=1e-8)


def test_linear_theta_rises_two_hundredfold() -> None:
    t = torch.tensor([0.0, 1e-6, 1 - 1e-6, 1.0], dtype=F64)
    integral = LinearTheta().integral(t)
    start, end = integral[1] - integral[0], integral[3] - integral[2]
    assert float(end / start) == pytest.approx(200, rel=1e-3)


@given(names, times)
def test_log_snr_round_trip(name: str, t: float) -> None:
    process = MRProcess(SCHEDULES[name])
    back = process.t_of_log_snr(process.log_snr(tensor(t)))
    assert float(back) == pytest.approx(t, rel=1e-9, abs=1e-11)


@given(names, times)
def test_one_primitive_gives_alpha_sigma_and_log_snr(name: str, t: float) -> None:
    process = MRProcess(SCHEDULES[name], sigma_max=0.2)
    alpha, sigma = process.alpha(tensor(t)), process.sigma(tensor(t))
    assert float(alpha**2 + (sigma / 0.2) ** 2) == pytest.approx(1, abs=1e-14)
    assert float(process.log_snr(tensor(t))) == pytest.approx(
        math.log(float(alpha / sigma)), abs=1e-10
    )


@given(names, times)
def test_dtype_is_kept_and_float32_is_exact(name: str, t: float) -> None:
    process = MRProcess(SCHEDULES[name])
    narrow = torch.tensor(t, dtype=torch.float32)
    for function in (process.alpha, process.sigma, process.log_snr, process.integral):
        assert function(narrow).dtype == torch.float32
        assert torch.equal(function(narrow), function(narrow.double()).float())
        assert function(narrow.double()).dtype == F64


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("keep_first", [False, True])
def test_tables_follow_the_published_recursion(kind: str, keep_first: bool) -> None:
    """The table of IR-SDE's Eq. for theta_i, written as a plain loop."""
    steps, eps = 100, 0.005
    if kind == "cosine":
        offset = lambda i: math.cos((i / (steps + 2) + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
        theta = [1 - offset(i) / offset(0) for i in range(1, steps + 2)]
    elif kind == "linear":
        theta = [1e-4 + (2e-2 - 1e-4) * i / steps for i in range(steps + 1)]
    else:
        theta = [1.0] * (steps + 1)
    total, cumulative = (0.0 if keep_first else -theta[0]), []
    for value in theta:
        total += value
        cumulative.append(total)
    expected = [c * -math.log(eps) / cumulative[-1] for c in cumulative]
    table = TabulatedTheta.irsde(kind, steps=steps, eps=eps, keep_first=keep_first)
    at = table.integral(torch.arange(steps + 1, dtype=F64) / steps)
    assert at.tolist() == pytest.approx(expected, rel=1e-10, abs=1e-14)
    assert (at[0] == 0) != keep_first


def test_continuous_cosine_is_the_limit_of_the_table() -> None:
    t = torch.linspace(0.05, 1, 20, dtype=F64)
    continuous = MRProcess(CosineTheta(0.005)).alpha(t)
    gaps = [
        float(
            (MRProcess(TabulatedTheta.irsde("cosine", steps=n)).alpha(t) - continuous).abs().max()
        )
        for n in (100, 1000, 10000)
    ]
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2]


@given(names, times, st.floats(0.05, 0.95))
def test_posterior_is_bayes_rule(name: str, t: float, share: float) -> None:
    """q(x_s | x_t, x0) ∝ q(x_t | x_s) q(x_s | x0), multiplied out by precision."""
    process = MRProcess(SCHEDULES[name], sigma_max=0.2)
    s = share * t
    x0, mu, x_t = (torch.full((1, 1, 1, 1), v, dtype=F64) for v in (0.7, 0.4, 0.55))
    mean, std = process.posterior(x_t, x0, mu, tensor(t), tensor(s))
    alpha_s, sigma_s = process.alpha(tensor(s)), process.sigma(tensor(s))
    ratio = process.alpha(tensor(t)) / alpha_s
    step_var = 0.2**2 * (1 - ratio**2)
    precision = 1 / sigma_s**2 + ratio**2 / step_var
    expected = alpha_s * (x0 - mu) / sigma_s**2 + ratio * (x_t - mu) / step_var
    assert float(std) == pytest.approx(float(precision) ** -0.5, rel=1e-6)
    assert float(mean - mu) == pytest.approx(float(expected / precision), rel=1e-6)


def test_marginal_at_zero_is_the_clean_image_and_prior_is_unclipped() -> None:
    process = MRProcess()
    x0, mu, eps = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.equal(process.marginal(x0, mu, torch.zeros(2), eps), mu + (x0 - mu))
    assert torch.equal(process.prior(mu, eps), mu + process.sigma_max * eps)
    assert float(process.prior(mu, 10 + eps).max()) > 1


@pytest.mark.parametrize("alpha_min", [0.0, 1.0, -1.0, float("nan")])
@pytest.mark.parametrize("schedule", [CosineTheta, LinearTheta, ConstantTheta])
def test_bad_schedules_are_refused(schedule: type, alpha_min: float) -> None:
    with pytest.raises(ValueError, match="alpha_min"):
        schedule(alpha_min)


@pytest.mark.parametrize("table", [(), (0.0,), (0.0, 0.0), (1.0, 0.5), (-0.1, 0.5)])
def test_bad_tables_are_refused(table: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="increasing"):
        TabulatedTheta(table)


def test_bad_process_is_refused() -> None:
    with pytest.raises(ValueError, match="sigma_max"):
        MRProcess(sigma_max=0)


def test_the_cosine_schedule_keeps_its_digits_near_zero() -> None:
    """Near t = 0 the integral is quadratic: theta grows linearly from theta_0 = 0."""
    t = torch.logspace(-12, -4, 40, dtype=torch.float64)
    process = MRProcess(CosineTheta())
    share = process.integral(t) / t**2
    assert torch.isfinite(process.log_snr(t)).all()
    assert torch.allclose(share, share[:1].expand_as(share), rtol=1e-2)
    assert torch.allclose(share[:20], share[:1].expand(20), rtol=1e-6)
    # Against quadrature where both are exact.
    far = torch.tensor([0.02, 0.0624, 0.0626, 0.5, 1.0], dtype=torch.float64)
    fine = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    u0, u = (0.008 / 1.008 * math.pi / 2, (fine + 0.008) / 1.008 * math.pi / 2)
    theta = 1 - torch.cos(u) ** 2 / math.cos(u0) ** 2
    total = torch.cumulative_trapezoid(theta, fine)
    index = (far * 200_000).round().long() - 1
    exact = -math.log(0.005) * total[index] / total[-1]
    assert torch.allclose(process.integral(far), exact, rtol=1e-7)
