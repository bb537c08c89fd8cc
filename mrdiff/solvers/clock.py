"""The three clocks in which the probability-flow ODE is linear, and their exact transitions.

With y_t = alpha_t y0 + sigma_t eps the same flow reads, on any path,

    d(y/sigma) = y0 d(alpha/sigma)      data      clock lambda = log(alpha/sigma), log-SNR
    d(y/alpha) = eps d(sigma/alpha)     noise     clock sigma/alpha
    d(y/size)  = v dclock               velocity  clock and size of the path's frame: arccos(alpha)
                                                  and 1 for the mean-reverting process

so a solver may replace f = y0, eps or v by a polynomial in the clock that goes with it. Between two
times, for any f of the share u of the step that is done, measured in the clock,

    y_t = decay y_s + gain (mean of f under e^(-rate (1 - u)), u in [0, 1]) + noise z

The first two have a stochastic form for every eta > 0 (MR Sampler, ICLR 2025, for eta = 1); the
third has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from mrdiff.diffusion.parameterization import DATA, NOISE, VELOCITY, Parameterization
from mrdiff.diffusion.path import GaussianPath

ClockName = Literal["data", "noise", "velocity"]


class Point(NamedTuple):
    """A time and what a transition needs to know of it, in float64."""

    t: float
    alpha: float
    sigma: float
    log_snr: float
    size: float  # of the velocity's frame, as is the next
    clock: float

    @property
    def ratio(self) -> float:
        """sigma / alpha."""
        return self.sigma / self.alpha


class Transition(NamedTuple):
    """The coefficients of the module's last equation."""

    decay: float
    gain: float
    rate: float
    noise: float


@dataclass(frozen=True)
class Clock:
    """A coordinate, the quantity that is a polynomial in it, and the transition between times."""

    target: Parameterization  # the quantity, as coefficients of y0 and eps
    coordinate: Callable[[Point], float]
    transition: Callable[[Point, Point, float], Transition]  # (s, t, eta), t < s

    @staticmethod
    def named(name: str) -> Clock:
        """``"data"``, ``"noise"`` or ``"velocity"``; ValueError for any other name."""
        if name not in _CLOCKS:
            raise ValueError(f"unknown prediction {name!r}: use data, noise or velocity")
        return _CLOCKS[name]


def points(path: GaussianPath, times: Tensor) -> list[Point]:
    """The points of float64 times, all above 0 (sigma = 0 has no log-SNR)."""
    frame = path.frame(times)
    columns = (times, *path.shares(times), path.log_snr(times), frame.size, frame.clock)
    return [Point(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _data(s: Point, t: Point, eta: float) -> Transition:
    """r_t = e^(-kappa h) r_s + ∫_0^h kappa e^(-kappa (h - u)) y0 du + …, r = y / alpha."""
    h, kappa = t.log_snr - s.log_snr, 1 + eta * eta
    # (alpha_t / alpha_s) e^(-kappa h), with e^(-h) = alpha_s sigma_t / (sigma_s alpha_t)
    decay = t.sigma / s.sigma * math.exp(-eta * eta * h)
    noise = t.sigma * math.sqrt(-math.expm1(-2 * eta * eta * h))
    return Transition(decay, -t.alpha * math.expm1(-kappa * h), kappa * h, noise)


def _noise(s: Point, t: Point, eta: float) -> Transition:
    """dr = kappa eps d(sigma/alpha) + noise of variance eta² |d(sigma/alpha)²|, r = y / alpha."""
    kappa = 1 + eta**2
    noise = t.alpha * eta * math.sqrt(s.ratio**2 - t.ratio**2)
    return Transition(t.alpha / s.alpha, t.alpha * kappa * (t.ratio - s.ratio), 0.0, noise)


def _velocity(s: Point, t: Point, eta: float) -> Transition:
    """d(y / size) = v dclock; deterministic."""
    assert eta == 0
    return Transition(t.size / s.size, t.size * (t.clock - s.clock), 0.0, 0.0)


_CLOCKS = {
    "data": Clock(DATA, lambda point: point.log_snr, _data),
    "noise": Clock(NOISE, lambda point: point.ratio, _noise),
    "velocity": Clock(VELOCITY, lambda point: point.clock, _velocity),
}
