"""Baseline solvers in residual coordinates: naive and obviously right.

Each is ``(denoiser, y, times, noise) -> y`` over a decreasing grid of float64 times. The Euler
and Heun steps go in the process's own clock, ∫theta, so that on a tabulated schedule they are
the steps of the official IR-SDE code.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import DenoiserLike
from mrdiff.names import BASELINES
from mrdiff.solvers.noise import Noise
from mrdiff.solvers.residual import (
    Draw,
    ResidualDenoiser,
    ResidualSolver,
    StepCallback,
    integrate,
)
from mrdiff.solvers.timegrid import uniform_t


def _sigma(denoiser: ResidualDenoiser, t: Tensor) -> float:
    return float(denoiser.process.sigma(t))


def _elapsed(denoiser: ResidualDenoiser, s: Tensor, t: Tensor) -> float:
    return float(denoiser.process.elapsed(s, t))


def euler_maruyama(denoiser: ResidualDenoiser, y: Tensor, times: Tensor, noise: Draw) -> Tensor:
    """Euler-Maruyama on the reverse SDE (IR-SDE Eq. 7); no noise on the step to t = 0."""
    sigma_max = denoiser.process.sigma_max
    for step, (t, s) in enumerate(itertools.pairwise(times), start=1):
        eps = denoiser(y, float(t)).eps
        tau = _elapsed(denoiser, s, t)
        y = y + tau * (y - 2 * sigma_max**2 / _sigma(denoiser, t) * eps)
        if s > 0:
            y = y + sigma_max * math.sqrt(2 * tau) * noise(step)
    return y


def _ode_slope(denoiser: ResidualDenoiser, y: Tensor, t: Tensor) -> Tensor:
    """-dy/d(∫theta) of the probability-flow ODE, pointing towards t = 0."""
    scale = denoiser.process.sigma_max**2 / _sigma(denoiser, t)
    return y - scale * denoiser(y, float(t)).eps


def euler_ode(denoiser: ResidualDenoiser, y: Tensor, times: Tensor, noise: Draw) -> Tensor:
    """Euler on the probability-flow ODE."""
    del noise
    for t, s in itertools.pairwise(times):
        y = y + _elapsed(denoiser, s, t) * _ode_slope(denoiser, y, t)
    return y


def heun_ode(denoiser: ResidualDenoiser, y: Tensor, times: Tensor, noise: Draw) -> Tensor:
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


def heun_after_euler(denoiser: ResidualDenoiser, y: Tensor, times: Tensor, noise: Draw) -> Tensor:
    """One Euler step, then :func:`heun_ode`: n steps cost 2 n - 2 calls, an even number."""
    y = euler_ode(denoiser, y, times[:2], noise)
    return heun_ode(denoiser, y, times[1:], noise) if len(times) > 2 else y


def posterior(denoiser: ResidualDenoiser, y: Tensor, times: Tensor, noise: Draw) -> Tensor:
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


@dataclass(frozen=True)
class BaselineSampler:
    """A baseline with its uniform grid in t, called as a sampler.

    Args:
        solver: the residual solver.
        nfe: number of network calls.
        steps: number of grid steps that cost ``nfe`` calls.
        temperature: scales the prior noise and that of the steps.
    """

    solver: ResidualSolver
    nfe: int
    steps: int
    temperature: float = 1.0

    @classmethod
    def named(cls, name: str, *, nfe: int, temperature: float = 1.0) -> BaselineSampler:
        """One of ``euler-sde``, ``euler-ode``, ``heun-ode``, ``posterior``.

        Raises:
            ValueError: for any other name, nfe below 1, or a negative temperature.
        """
        if nfe < 1:
            raise ValueError(f"nfe must be at least 1, got {nfe}")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        if name == "heun-ode":
            solver = heun_ode if nfe % 2 else heun_after_euler
            return cls(solver, nfe, nfe // 2 + 1, temperature)
        if name not in _BASELINES:
            raise ValueError(f"unknown baseline {name!r}: use one of {', '.join(BASELINES)}")
        return cls(_BASELINES[name], nfe, nfe, temperature)

    def __call__(
        self,
        denoiser: DenoiserLike,
        mu: Tensor,
        noise: Noise = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """Restore ``mu`` ``[B, C, H, W]`` in [0, 1]; the result is not clamped."""
        times = uniform_t(denoiser.process, self.steps)
        return integrate(
            self.solver,
            denoiser,
            mu,
            times,
            noise=noise,
            callback=callback,
            temperature=self.temperature,
        )


_BASELINES: dict[str, ResidualSolver] = {
    "euler-sde": euler_maruyama,
    "euler-ode": euler_ode,
    "posterior": posterior,
}
