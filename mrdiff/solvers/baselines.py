"""Baseline solvers in residual coordinates y = x - mu: naive and obviously right.

There y_t = alpha_t y0 + sigma_t eps. Each solver is ``(denoiser, y, times, noise) -> y`` over
decreasing float64 times. The Euler and Heun steps go in the process's own clock, ∫theta, so that on
a tabulated schedule they are the steps of the official IR-SDE code.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import DenoiserLike
from mrdiff.solvers.noise import Noise, RunNoise
from mrdiff.solvers.run import ImageDenoiser, Sampler, StepCallback, check_run
from mrdiff.solvers.timegrid import uniform_t
from mrdiff.system.names import BASELINES


class Residual(NamedTuple):
    """Predicted clean residual y0 = x0 - mu and noise eps, both ``[B, C, H, W]``."""

    y0: Tensor
    eps: Tensor


class ResidualDenoiser:
    """A denoiser in residual coordinates: ``(y, t) -> Residual``."""

    def __init__(self, predict: ImageDenoiser) -> None:
        self._predict = predict
        self.process = predict.process

    def __call__(self, y: Tensor, t: float) -> Residual:
        mu = self._predict.mu
        prediction = self._predict(mu + y, t)
        return Residual(prediction.x0 - mu, prediction.eps)


ResidualSolver = Callable[[ResidualDenoiser, Tensor, Tensor, RunNoise], Tensor]


def integrate(
    solver: ResidualSolver,
    denoiser: DenoiserLike,
    mu: Tensor,
    times: Tensor,
    *,
    noise: Noise = None,
    callback: StepCallback | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Run a residual solver over ``times`` from the prior; the rest is as in :class:`Sampler`."""
    predict = ImageDenoiser(denoiser, mu, callback, times=times)
    draw = RunNoise(noise, predict.mu, temperature)
    start = predict.process.prior(torch.zeros_like(predict.mu), draw(0))
    return predict.mu + solver(ResidualDenoiser(predict), start, times, draw)


def _elapsed(denoiser: ResidualDenoiser, s: Tensor, t: Tensor) -> float:
    return float(denoiser.process.elapsed(s, t))


def euler_maruyama(denoiser: ResidualDenoiser, y: Tensor, times: Tensor, noise: RunNoise) -> Tensor:
    """Euler-Maruyama on the reverse SDE (IR-SDE Eq. 7); no noise on the step to t = 0."""
    sigma_max = denoiser.process.sigma_max
    for step, (t, s) in enumerate(itertools.pairwise(times), start=1):
        eps = denoiser(y, float(t)).eps
        tau = _elapsed(denoiser, s, t)
        y = y + tau * (y - 2 * sigma_max**2 / float(denoiser.process.sigma(t)) * eps)
        if s > 0:
            y = y + sigma_max * math.sqrt(2 * tau) * noise(step)
    return y


def _ode_slope(denoiser: ResidualDenoiser, y: Tensor, t: Tensor) -> Tensor:
    """-dy/d(∫theta) of the probability-flow ODE, pointing towards t = 0."""
    scale = denoiser.process.sigma_max**2 / float(denoiser.process.sigma(t))
    return y - scale * denoiser(y, float(t)).eps


def euler_ode(denoiser: ResidualDenoiser, y: Tensor, times: Tensor, noise: RunNoise) -> Tensor:
    """Euler on the probability-flow ODE."""
    del noise
    for t, s in itertools.pairwise(times):
        y = y + _elapsed(denoiser, s, t) * _ode_slope(denoiser, y, t)
    return y


def heun_ode(denoiser: ResidualDenoiser, y: Tensor, times: Tensor, noise: RunNoise) -> Tensor:
    """Heun on the probability-flow ODE, two calls a step.

    The step to t = 0, where the slope divides by sigma = 0, is an Euler step: n steps cost
    2 n - 1 calls.
    """
    del noise
    for t, s in itertools.pairwise(times):
        tau = _elapsed(denoiser, s, t)
        slope = _ode_slope(denoiser, y, t)
        if s > 0:
            slope = 0.5 * (slope + _ode_slope(denoiser, y + tau * slope, s))
        y = y + tau * slope
    return y


def heun_after_euler(
    denoiser: ResidualDenoiser, y: Tensor, times: Tensor, noise: RunNoise
) -> Tensor:
    """One Euler step, then :func:`heun_ode`: n steps cost 2 n - 2 calls, an even number."""
    y = euler_ode(denoiser, y, times[:2], noise)
    return heun_ode(denoiser, y, times[1:], noise) if len(times) > 2 else y


def posterior(denoiser: ResidualDenoiser, y: Tensor, times: Tensor, noise: RunNoise) -> Tensor:
    """Ancestral sampling from q(y_s | y_t, y0) with the predicted y0, for any grid.

    It equals MR-SDE-1 (``MRSampler(order=1, eta=1)``) exactly.
    """
    zero = torch.zeros_like(y)
    for step, (t, s) in enumerate(itertools.pairwise(times), start=1):
        y0 = denoiser(y, float(t)).y0
        if s == 0:
            return y0
        mean, std = denoiser.process.posterior(y, y0, zero, t, s)
        y = mean + std.to(y) * noise(step)
    return y


_SOLVERS: dict[str, ResidualSolver] = {
    "euler-sde": euler_maruyama,
    "euler-ode": euler_ode,
    "posterior": posterior,
}


@dataclass(kw_only=True)
class BaselineSampler(Sampler):
    """A baseline by its name of :data:`mrdiff.system.names.BASELINES`, on a uniform grid in t."""

    name: str
    nfe: int = 5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in BASELINES:
            raise ValueError(f"unknown baseline {self.name!r}: use one of {', '.join(BASELINES)}")
        check_run(self.nfe, self.temperature)

    def options(self) -> dict[str, Any]:
        return asdict(self)

    def __call__(
        self,
        denoiser: DenoiserLike,
        mu: Tensor,
        noise: Noise = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        solver, steps = _SOLVERS.get(self.name), self.nfe
        if solver is None:  # heun-ode
            solver, steps = (heun_ode if self.nfe % 2 else heun_after_euler), self.nfe // 2 + 1
        times = uniform_t(denoiser.process, steps)
        run = partial(integrate, noise=noise, callback=callback, temperature=self.temperature)
        return run(solver, denoiser, mu, times)
