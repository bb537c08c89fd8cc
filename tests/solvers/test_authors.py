"""Every path takes its author's first-order steps.

An author's formulas are written here as in the paper or the published code, in the state x and in
the author's own quantities, with the clean and the degraded image x0 and mu given. All take two
times, from s to t < s, and answer with the mean of x_t and its standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from mrdiff import (
    DDBMVE,
    DDBMVP,
    GOUB,
    RDDM,
    BrownianBridge,
    ConditionalVP,
    ConstantTheta,
    CosineTheta,
    DiffUIR,
    FlowMatching,
    GaussianPath,
    InDI,
    LinearTheta,
    MRProcess,
    ResShift,
    TabulatedTheta,
    UniDB,
)
from mrdiff.solvers.clock import Clock
from mrdiff.solvers.multistep import plan_steps
from tests.oracles import PATHS

F64 = torch.float64
NOISY = {name: path for name, path in PATHS.items() if path.noise}
TIMES = ((0.97, 0.6), (0.6, 0.55), (0.55, 0.1), (0.1, 0.02))
DRAW = torch.Generator().manual_seed(5)
X, X0, MU = (torch.rand(4, generator=DRAW, dtype=F64) for _ in range(3))

Marginal = Callable[[float], tuple[float, float, float]]  # shares of x0, mu and eps at a time
Step = Callable[[float, float], tuple[Tensor, float]]


def ours(path: GaussianPath, s: float, t: float, eta: float) -> tuple[Tensor, float]:
    """Our step from the state X, with x0 predicted right, in the author's coordinates."""
    (step,) = plan_steps(path, (s, t), order=1, eta=eta, clock=Clock.named("data"))
    y = X - path.centred(MU, s)
    mean = path.centred(MU, t) + step.decay * y + step.weights[0] * (X0 - MU)
    return mean, path.noise * step.noise


def same_step(path: GaussianPath, theirs: Step, eta: float, tolerance: float = 1e-12) -> None:
    """Of steps that are noisy by another rule than ours, ``eta`` may be nan: ours as noisy."""
    for s, t in TIMES:
        their_mean, their_std = theirs(s, t)
        share = eta_with(path, s, t, their_std) if math.isnan(eta) else eta
        mean, std = ours(path, s, t, share)
        assert float((mean - their_mean).abs().max()) < tolerance, (s, t)
        assert std == pytest.approx(their_std, abs=tolerance), (s, t)


def same_marginal(path: GaussianPath, theirs: Marginal, tolerance: float = 1e-12) -> None:
    for t in (0.02, 0.1, 0.4, 0.75, 0.97):
        alpha, sigma = float(path.alpha(t)), path.noise * float(path.sigma(t))
        of_mu = float(path.centred(torch.ones((), dtype=F64), t)) - alpha
        assert (alpha, of_mu, sigma) == pytest.approx(theirs(t), abs=tolerance), t


AS_NOISY = math.nan


def eta_with(path: GaussianPath, s: float, t: float, std: float) -> float:
    """The eta with which our step adds noise of that standard deviation."""
    h = float(path.log_snr(t) - path.log_snr(s))
    return math.sqrt(-math.log1p(-((std / float(path.sigma(t))) ** 2)) / (2 * h))


def theta(path: MRProcess | GOUB) -> Callable[[float], float]:
    return lambda t: float(path.schedule.integral(torch.tensor(t, dtype=F64)))


def test_irsde_posterior() -> None:
    """Luo et al. 2023, Eq. 6 and 13, with thetas_t-1:t = whole - before."""
    path = MRProcess(CosineTheta(), sigma_max=0.2)
    bar = theta(path)

    def forgotten(integral: float) -> float:
        return 1 - math.exp(-2 * integral)

    def step(s: float, t: float) -> tuple[Tensor, float]:
        whole, before = bar(s), bar(t)
        since = whole - before
        of_x = forgotten(before) / forgotten(whole) * math.exp(-since)
        of_x0 = forgotten(since) / forgotten(whole) * math.exp(-before)
        variance = 0.2**2 * forgotten(before) * forgotten(since) / forgotten(whole)
        return of_x * (X - MU) + of_x0 * (X0 - MU) + MU, math.sqrt(variance)

    def marginal(t: float) -> tuple[float, float, float]:
        kept = math.exp(-bar(t))
        return kept, 1 - kept, 0.2 * math.sqrt(forgotten(bar(t)))

    same_marginal(path, marginal)
    same_step(path, step, eta=1)


@pytest.mark.parametrize("schedule", [CosineTheta(), TabulatedTheta.irsde("cosine")])
def test_goub_posterior(schedule: CosineTheta | TabulatedTheta) -> None:
    """Yue et al. 2024, Eq. 6 and 7, and r_mean_1 and r_sigma_1 of the code for any two times."""
    path = GOUB(schedule, sigma_max=30 / 255)
    bar = theta(path)

    def variance(start: float, end: float) -> float:
        return (30 / 255) ** 2 * (1 - math.exp(-2 * (bar(end) - bar(start))))

    def marginal(t: float) -> tuple[float, float, float]:
        kept, ahead = math.exp(-bar(t)), math.exp(-2 * (bar(1.0) - bar(t)))
        begun, left, all_ = variance(0, t), variance(t, 1), variance(0, 1)
        of_mu = ((1 - kept) * left + ahead * begun) / all_
        return kept * left / all_, of_mu, math.sqrt(begun * left / all_)

    def step(s: float, t: float) -> tuple[Tensor, float]:
        (m_s, n_s, f_s), (m_t, n_t, f_t) = marginal(s), marginal(t)
        m = m_s / m_t  # of x_t in x_s
        of_mu = n_s - n_t * m
        added = f_s**2 - f_t**2 * m**2
        mean = f_t**2 * m * (X - of_mu * MU) + added * (m_t * X0 + n_t * MU)
        return mean / f_s**2, math.sqrt(added) * f_t / f_s

    same_marginal(path, marginal)
    same_step(path, step, eta=1)


@pytest.mark.parametrize("dt", [1e-2, 1e-3, 1e-4])
def test_goub_mean_ode(dt: float) -> None:
    """reverse_mean_ode_step of the code: Euler on the reverse SDE without its noise.

    What eta = 1 does at temperature 0 is the same motion, without Euler's error of dt².
    """
    path, s, lam = GOUB(ConstantTheta(), sigma_max=0.1), 0.6, 0.1
    rate = -math.log(0.005)
    ahead = math.exp(-2 * rate * (1 - s))
    alpha, sigma = map(float, path.shares(s))
    score = -(X - MU - alpha * (X0 - MU)) / sigma**2
    squared = 2 * lam**2 * rate
    pinned = -squared * ahead / (lam**2 * (1 - ahead)) * (X - MU)
    euler = X - (rate * (MU - X) + pinned - squared * score) * dt
    assert float((ours(path, s, s - dt, 1)[0] - euler).abs().max()) < 30 * dt**2


def i2sb(std: float) -> tuple[Marginal, Step]:
    """Liu et al. 2023, Eq. 11 and 4: products of two Gaussians around x0 and x1 or x_s."""

    def product(of_first: float, of_second: float) -> tuple[float, float, float]:
        whole = of_first + of_second
        return of_second / whole, of_first / whole, math.sqrt(of_first * of_second / whole)

    def step(s: float, t: float) -> tuple[Tensor, float]:
        of_x0, of_x, added = product(std**2 * t, std**2 * (s - t))
        return of_x0 * X0 + of_x * X, added

    return lambda t: product(std**2 * t, std**2 * (1 - t)), step


def test_i2sb_posterior_and_its_noise_free_form() -> None:
    """The OT-ODE of I2SB is the mean of the same step: ours with eta = 1 at temperature 0."""
    marginal, step = i2sb(0.3)
    same_marginal(BrownianBridge(0.3), marginal)
    same_step(BrownianBridge(0.3), step, eta=1)
    # It is trained on states without noise, so it is a cold path, whatever eta is.
    same_marginal(InDI(), lambda t: (*marginal(t)[:2], 0.0))
    same_step(InDI(), lambda s, t: (step(s, t)[0], 0.0), eta=0)


Diffusion = Callable[[Tensor], tuple[Tensor, Tensor]]  # alpha and rho of x = alpha (x0 + rho eps)


def exploding(t: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones_like(t), 0.4 * t


def preserving(t: Tensor) -> tuple[Tensor, Tensor]:
    """beta = 0.1 + 2 t, in images whose noise is 0.4 of the paper's."""
    squared = torch.exp(0.1 * t + t**2)
    return squared**-0.5, 0.4 * torch.sqrt(squared - 1)


def bridge(diffusion: Diffusion, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shares of x0, mu and eps: Zhou et al. 2024, Eq. 8; a, b, c of DBIM in another order."""
    (alpha, rho), (alpha_1, rho_1) = diffusion(t), diffusion(torch.ones_like(t))
    left = rho_1**2 - rho**2
    of_mu = alpha / alpha_1 * rho**2 / rho_1**2
    return alpha * left / rho_1**2, of_mu, alpha * rho * torch.sqrt(left) / rho_1


def dbim(diffusion: Diffusion, eta: float) -> Step:
    """Zheng et al. 2025: omega of the noise is new, the rest stays in its direction."""

    def step(s: float, t: float) -> tuple[Tensor, float]:
        times = torch.tensor([s, t], dtype=F64)
        alpha, rho = diffusion(times)
        of_x0, of_mu, of_eps = bridge(diffusion, times)
        omega = eta * alpha[1] * rho[1] * torch.sqrt(1 - rho[1] ** 2 / rho[0] ** 2)
        kept = torch.sqrt(of_eps[1] ** 2 - omega**2) / of_eps[0]
        mean = kept * X + (of_x0[1] - kept * of_x0[0]) * X0 + (of_mu[1] - kept * of_mu[0]) * MU
        return mean, float(omega)

    return step


DDBM = pytest.mark.parametrize(
    ("path", "diffusion"), [(DDBMVE(0.4), exploding), (DDBMVP(0.4), preserving)], ids=["ve", "vp"]
)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@DDBM
def test_dbim_step(path: GaussianPath, diffusion: Diffusion, eta: float) -> None:
    def marginal(t: float) -> tuple[float, float, float]:
        of_x0, of_mu, of_eps = map(float, bridge(diffusion, torch.tensor(t, dtype=F64)))
        return of_x0, of_mu, of_eps

    same_marginal(path, marginal)
    same_step(path, dbim(diffusion, eta), eta)


@DDBM
def test_ddbm_flow(path: GaussianPath, diffusion: Diffusion) -> None:
    """dx/dt = f x - g² (score of the bridge / 2 - score of what is ahead), Eq. 10, for a given x0.

    Our eta = 0 is the motion in which eps stays as it is.
    """
    t = torch.tensor([0.05, 0.3, 0.6, 0.9], dtype=F64).repeat_interleave(4).requires_grad_()
    x, x0, mu = (image.repeat(4) for image in (X, X0, MU))

    def slope(value: Tensor) -> Tensor:
        return torch.autograd.grad((value + 0 * t).sum(), t, retain_graph=True)[0]

    alpha, rho = diffusion(t)
    end, rho_1 = diffusion(torch.ones_like(t))
    drift = slope(torch.log(alpha))
    squared = slope((alpha * rho) ** 2) - 2 * drift * (alpha * rho) ** 2  # g²
    of_x0, of_mu, of_eps = bridge(diffusion, t)
    score = -(x - of_x0 * x0 - of_mu * mu) / of_eps**2
    ahead = -(x - alpha / end * mu) / (alpha**2 * (rho_1**2 - rho**2))
    theirs = drift * x - squared * (0.5 * score - ahead)

    a, s = path.coefficients(t)
    centre = path.centred(torch.ones_like(t), t)
    y = (x - centre * mu).detach()
    moving = slope(a) * (x0 - mu) + slope(s) / s * (y - a * (x0 - mu)) + slope(centre) * mu
    assert torch.allclose(moving, theirs, rtol=0, atol=1e-11)


def resshift_roots(steps: int, least: float, end: float, kappa: float) -> np.ndarray:
    """sqrt(eta) of the published code, whose ``etas_end`` is the last root, not the last eta."""
    first = least / kappa
    growth = np.linspace(0, 1, steps) ** 0.3 * (steps - 1)
    return first * (end / first) ** (growth / (steps - 1))


def test_resshift_posterior() -> None:
    """Yue et al. 2023, Eq. 2 and 7; its noise is that of eta between 0 and 1, not of eta = 1.

    Its chain knows x0 at every step, so its posterior is not Bayes' rule on a Markov path.
    """
    steps = 50
    roots = resshift_roots(steps, 0.02, 0.99, kappa=1.0)
    path = ResShift(kappa=1.0, least=0.02, end=0.99**2, power=0.3)
    sigma = path.sigma(torch.linspace(0, 1, steps, dtype=F64))
    assert sigma.tolist() == pytest.approx(roots.tolist(), abs=1e-12)

    def shift(t: float) -> float:
        return 0.02**2 * (0.99 / 0.02) ** (2 * t**0.3)

    def step(s: float, t: float) -> tuple[Tensor, float]:
        alpha = shift(s) - shift(t)
        mean = shift(t) / shift(s) * X + alpha / shift(s) * X0
        return mean, math.sqrt(shift(t) / shift(s) * alpha)

    same_marginal(path, lambda t: (1 - shift(t), shift(t), math.sqrt(shift(t))))
    same_step(path, step, eta=AS_NOISY)
    assert 0 < eta_with(path, 0.6, 0.3, step(0.6, 0.3)[1]) < 1


def rddm(
    shares: Marginal, faded: Callable[[float], float], eta: float, *, code: bool = False
) -> Step:
    """Liu et al. 2024, Eq. 14, with the degraded image fading as in DiffUIR's Eq. 12.

    ``shares`` are 1 - A, A - D and B. The predicted residual and noise are those of X and X0.
    DiffUIR's ``code`` leaves the noise of the state as it is.
    """

    def step(s: float, t: float) -> tuple[Tensor, float]:
        (kept_s, _, b_s), (kept_t, _, b_t) = shares(s), shares(t)
        residual = MU - X0
        eps = (X - X0 - (1 - kept_s) * residual + faded(s) * MU) / b_s
        variance = eta * b_t**2 * (b_s**2 - b_t**2) / b_s**2
        x = X - (kept_t - kept_s) * residual + (faded(s) - faded(t)) * MU
        if not code:
            x = x - (b_s - math.sqrt(b_t**2 - variance)) * eps
        return x, math.sqrt(variance)

    return step


def test_rddm_steps() -> None:
    """Eq. 7 and 14; the code scales the variance with eta, and its eta = 1 is ours below 1."""

    def shares(t: float) -> tuple[float, float, float]:
        return 1 - (2 * t - t**2), 2 * t - t**2, 0.05 * t

    def still(t: float) -> float:
        return 0.0

    same_marginal(RDDM(0.05), shares)
    same_step(RDDM(0.05), rddm(shares, still, eta=0), eta=0)
    for eta in (0.3, 1.0):
        same_step(RDDM(0.05), rddm(shares, still, eta=eta), eta=AS_NOISY)


@pytest.mark.parametrize("steps", [100, 1000])
def test_rddm_is_the_limit_of_its_tables(steps: int) -> None:
    """alpha falls and beta² grows as whole numbers do; both sums are 1."""
    whole = np.arange(1, steps + 1)
    of_mu = np.cumsum(whole[::-1]) / whole.sum()
    noise = 0.05 * np.sqrt(np.cumsum(whole) / whole.sum())
    alpha, sigma = RDDM(0.05).shares(torch.from_numpy(whole / steps))
    assert np.abs(1 - alpha.numpy() - of_mu).max() < 1 / steps
    assert np.abs(sigma.numpy() - noise).max() < 0.05 / steps


def test_diffuir_steps() -> None:
    """Zheng et al. 2024, Eq. 8 and 12, on the linear betas of their code."""
    steps = 1000
    betas = np.linspace(1e-4, 0.02, steps)
    kept = np.sqrt(np.cumprod(1 - betas))
    path = DiffUIR(TabulatedTheta((0.0, *-np.log(kept))), sigma_max=0.5, delta=0.75)
    at = torch.arange(1, steps + 1, dtype=F64) / steps
    assert np.abs(path.alpha(at).numpy() - kept).max() < 1e-12
    assert np.abs(path.sigma(at).numpy() - 0.5 * np.sqrt(1 - kept**2)).max() < 1e-12
    # Its sum of delta from 1e-6 to 1.5e-3 is 0.75 t² for many steps.
    faded = np.cumsum(np.linspace(1e-6, 1.5e-3, steps))
    centre = path.centred(torch.ones(steps, 1, dtype=F64), at).flatten()
    assert np.abs(1 - centre.numpy() - faded).max() < 1 / steps

    def shares(t: float) -> tuple[float, float, float]:
        a = 1 - kept[round(t * steps) - 1]
        return 1 - a, a - fade(t), 0.5 * math.sqrt(1 - (1 - a) ** 2)

    def fade(t: float) -> float:
        return 0.75 * t**2

    same_marginal(path, shares)
    same_step(path, rddm(shares, fade, eta=0), eta=0)
    same_step(path, rddm(shares, fade, eta=1), eta=AS_NOISY)
    for s, t in TIMES:  # the published sampler does not take noise away
        noise = (X - path.centred(MU, s) - float(path.alpha(s)) * (X0 - MU)) / float(path.sigma(s))
        left = rddm(shares, fade, eta=0, code=True)(s, t)[0] - ours(path, s, t, 0)[0]
        expected = float(path.sigma(s) - path.sigma(t)) * noise
        assert torch.allclose(left, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("std", [0.1, 0.025])
def test_flow_is_euler_on_the_velocity(std: float) -> None:
    """Lipman et al. 2023, Eq. 20 and 22; PMRF's time is 1 - t and its source mu + std eps."""

    def step(s: float, t: float) -> tuple[Tensor, float]:
        velocity = (X0 - X) / s  # x0 less the source that x_s and x0 lie in line with
        return X + (s - t) * velocity, 0.0

    same_marginal(FlowMatching(std), lambda t: (1 - t, t, std * t))
    same_step(FlowMatching(std), step, eta=0)


def test_indi_step() -> None:
    """Delbracio and Milanfar 2023, Eq. 6, from t to t - delta."""
    same_marginal(InDI(), lambda t: (1 - t, t, 0.0))

    def step(s: float, t: float) -> tuple[Tensor, float]:
        share = (s - t) / s
        return share * X0 + (1 - share) * X, 0.0

    same_step(InDI(), step, eta=0)


def test_vp_steps() -> None:
    """DDIM Eq. 12 (Song et al. 2021) and DDPM Eq. 7 (Ho et al. 2020), of Palette."""
    path = ConditionalVP(LinearTheta(), sigma_max=0.5)

    def bar(t: float) -> float:
        return float(path.alpha(t)) ** 2

    def ddim(s: float, t: float) -> tuple[Tensor, float]:
        eps = (X - math.sqrt(bar(s)) * X0) / math.sqrt(1 - bar(s))
        return math.sqrt(bar(t)) * X0 + math.sqrt(1 - bar(t)) * eps, 0.0

    def ddpm(s: float, t: float) -> tuple[Tensor, float]:
        alpha = bar(s) / bar(t)
        of_x0 = math.sqrt(bar(t)) * (1 - alpha) / (1 - bar(s))
        of_x = math.sqrt(alpha) * (1 - bar(t)) / (1 - bar(s))
        variance = (1 - alpha) * (1 - bar(t)) / (1 - bar(s))
        return of_x0 * X0 + of_x * X, 0.5 * math.sqrt(variance)

    same_marginal(path, lambda t: (math.sqrt(bar(t)), 0.0, 0.5 * math.sqrt(1 - bar(t))))
    same_step(path, ddim, eta=0)
    same_step(path, ddpm, eta=1)


def runge_kutta(
    rate: Callable[[float, np.ndarray], np.ndarray], state: np.ndarray, start: float, end: float
) -> np.ndarray:
    """The classical one, in 4000 steps."""
    h = (end - start) / 4000
    for u in start + h * np.arange(4000):
        first = rate(u, state)
        second = rate(u + h / 2, state + h / 2 * first)
        third = rate(u + h / 2, state + h / 2 * second)
        state = state + h / 6 * (first + 2 * second + 2 * third + rate(u + h, state + h * third))
    return state


@pytest.mark.parametrize("gamma", [0.3, 300.0])
def test_unidb_solves_its_sde(gamma: float) -> None:
    """Pan et al. 2025: dy = -(1 + 2 lambda² w² / (1 / gamma + left)) y du + lambda sqrt(2) dw.

    Time is u = ∫theta, w = e^-(u_1 - u) and left = lambda² (1 - w²): the control that costs least
    with the price gamma / 2 |y_1|² of what is left of the residual.
    """
    path = UniDB(CosineTheta(), sigma_max=0.2, gamma=gamma)
    bar = theta(path)
    end = bar(1.0)

    def pull(u: float) -> float:
        ahead = math.exp(-2 * (end - u))
        return 1 + 2 * 0.2**2 * ahead / (1 / gamma + 0.2**2 * (1 - ahead))

    def moments(u: float, state: np.ndarray) -> np.ndarray:
        return np.array([-pull(u) * state[0], -2 * pull(u) * state[1] + 2 * 0.2**2])

    def between(start: float, stop: float) -> tuple[float, float]:
        share, variance = runge_kutta(moments, np.array([1.0, 0.0]), bar(start), bar(stop))
        return share, variance

    def marginal(t: float) -> tuple[float, float, float]:
        share, variance = between(0.0, t)
        return share, 1 - share, math.sqrt(variance)

    def bayes(s: float, t: float) -> tuple[Tensor, float]:
        (share, before), (kept, added) = between(0.0, t), between(t, s)
        gain = before * kept / (before * kept**2 + added)
        mean = share * (X0 - MU)
        return MU + mean + gain * (X - MU - kept * mean), math.sqrt(before - gain * kept * before)

    def flow(s: float, t: float) -> tuple[Tensor, float]:
        """The probability flow for X0, whose marginal moments are undone beside the state."""

        def rate(u: float, state: np.ndarray) -> np.ndarray:
            y, (share, variance) = state[:-2], state[-2:]
            score = -(y - share * (X0 - MU).numpy()) / variance
            drift = -pull(u) * y - 0.2**2 * score
            return np.concatenate([drift, moments(u, state[-2:])])

        state = np.concatenate([(X - MU).numpy(), between(0.0, s)])
        return MU + torch.from_numpy(runge_kutta(rate, state, bar(s), bar(t))[:-2]), 0.0

    same_marginal(path, marginal, tolerance=1e-9)
    same_step(path, bayes, eta=1, tolerance=1e-9)
    same_step(path, flow, eta=0, tolerance=1e-9)


def test_unidb_of_a_high_price_is_goub() -> None:
    pinned = GOUB(CosineTheta(), sigma_max=0.2)

    def marginal(t: float) -> tuple[float, float, float]:
        alpha, sigma = map(float, pinned.shares(t))
        return alpha, 1 - alpha, sigma

    same_marginal(UniDB(CosineTheta(), sigma_max=0.2, gamma=1e12), marginal, tolerance=1e-9)
    for eta in (0.0, 1.0):
        path = UniDB(CosineTheta(), sigma_max=0.2, gamma=1e12)
        same_step(path, partial(ours, pinned, eta=eta), eta, tolerance=1e-9)
