"""Baseline solvers as steps over decreasing times, each from its own formula.

With y_t = alpha_t y0 + sigma_t eps. The Euler and Heun steps go in tau = log(1 / alpha), ∫theta of
the mean-reverting process, so that on a tabulated schedule they are the steps of the official
IR-SDE code: the probability-flow ODE is dy = (y - c eps) dtau, and g² dtau = 2 sigma c dtau in the
SDE, with c = sigma_max² / sigma_t there and :meth:`.GaussianPath.noise_rate` on any path.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from torch import Tensor

from mrdiff.diffusion.path import GaussianPath, remembered
from mrdiff.diffusion.wrappers import DenoiserLike
from mrdiff.solvers.noise import Noise
from mrdiff.solvers.run import PathError, Sampler, Step, StepCallback, check_run, solve
from mrdiff.solvers.timegrid import ALPHA_MIN, start_time, uniform_t
from mrdiff.system.names import BASELINES


class _Move(NamedTuple):
    """From t to s < t."""

    t: float
    s: float
    tau: float  # log(alpha_s / alpha_t)
    c: float
    sigma: float

    def step(self, decay: float, *weights: float, noise: float = 0.0) -> Step:
        """One whose weights are those of eps."""
        return Step(self.t, decay, weights, noise, a=0.0, b=1.0)


def _moves(path: GaussianPath, times: Sequence[float]) -> list[_Move]:
    return [
        _Move(t, s, *map(float, (path.elapsed(s, t), path.noise_rate(t), path.sigma(t))))
        for t, s in itertools.pairwise(times)
    ]


def euler_maruyama(path: GaussianPath, times: Sequence[float]) -> list[Step]:
    """Euler-Maruyama on the reverse SDE (IR-SDE Eq. 7); no noise on the step to t = 0."""
    return [
        move.step(
            1 + move.tau,
            -2 * move.tau * move.c,
            noise=math.sqrt(2 * move.sigma * move.c * move.tau) if move.s > 0 else 0.0,
        )
        for move in _moves(path, times)
    ]


def euler_ode(path: GaussianPath, times: Sequence[float]) -> list[Step]:
    """Euler on the probability-flow ODE."""
    return [move.step(1 + move.tau, -move.tau * move.c) for move in _moves(path, times)]


def heun_ode(path: GaussianPath, times: Sequence[float]) -> list[Step]:
    """Heun on the probability-flow ODE, two calls a step.

    The step to t = 0, where the slope divides by sigma = 0, is an Euler step: n steps cost
    2 n - 1 calls. The second call is made in u = (1 + tau) y - tau c eps, and the mean slope's step

        y + tau / 2 (y - c eps) + tau / 2 (u - c' eps')

    is written in u alone, by y = (u + tau c eps) / (1 + tau).
    """
    steps = list[Step]()
    for move in _moves(path, times):
        tau, c = move.tau, move.c
        steps.append(move.step(1 + tau, -tau * c))
        if move.s > 0:
            share = (1 + tau / 2) / (1 + tau)
            after = move._replace(t=move.s)
            c_after = float(path.noise_rate(move.s))
            weights = -tau / 2 * c_after, tau * c * (share - 0.5)
            steps.append(after.step(share + tau / 2, *weights))
    return steps


def heun_after_euler(path: GaussianPath, times: Sequence[float]) -> list[Step]:
    """One Euler step, then :func:`heun_ode`: n steps cost 2 n - 2 calls, an even number."""
    return euler_ode(path, times[:2]) + heun_ode(path, times[1:])


def posterior(path: GaussianPath, times: Sequence[float]) -> list[Step]:
    """Ancestral sampling from q(y_s | y_t, y0) with the predicted y0; to t = 0 it is y0 itself.

    It equals MR-SDE-1 (``MRSampler(order=1, eta=1)``) exactly.
    """
    between = itertools.pairwise(times[:-1])
    shares = ((t, [*map(float, path.posterior_shares(t, s))]) for t, s in between)
    return [Step(t, decay, (gain,), std) for t, (decay, gain, std) in shares]


_LEFT_OVER = 0.005  # of noise in the result, in image units: one grey level
_SOLVERS: dict[str, Callable[[GaussianPath, Sequence[float]], list[Step]]] = {
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

    def check(self, path: GaussianPath) -> None:
        _plan(path, self.name, self.nfe)

    def __call__(
        self,
        denoiser: DenoiserLike,
        mu: Tensor,
        noise: Noise = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        steps, last = _plan(denoiser.process, self.name, self.nfe)
        return solve(
            denoiser,
            mu,
            steps,
            last,
            noise=noise,
            temperature=self.temperature,
            callback=callback,
        )


@remembered
def _plan(path: GaussianPath, name: str, nfe: int) -> tuple[list[Step], float | None]:
    """The steps, and the time of the last call if its prediction is the result."""
    starts, ends = path.alpha(start_time(path)), path.sigma(0.0)
    if name != "posterior" and (starts < 2 * ALPHA_MIN or ends > _LEFT_OVER):
        kind = type(path).__name__
        raise PathError(f"{name} needs a path from alpha > 0 to sigma = 0, which {kind} is not")
    solver, count = _SOLVERS.get(name), nfe
    if solver is None:  # heun-ode
        solver, count = (heun_ode if nfe % 2 else heun_after_euler), nfe // 2 + 1
    times = uniform_t(path, count).tolist()
    return solver(path, times), times[-2] if name == "posterior" else None
