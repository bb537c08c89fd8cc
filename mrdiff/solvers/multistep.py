"""The coefficients of the multistep solver: all of a run, in float64, before the first call.

A step replaces the clock's quantity (y0, eps or the velocity) by the polynomial through its last
``order`` values; its integral against the clock's kernel is a weighted sum of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import Prediction
from mrdiff.diffusion.process import MRProcess
from mrdiff.solvers.clock import Clock, Transition, points

_QUADRATURE = np.polynomial.legendre.leggauss(32)


def _moments(rate: float, count: int) -> np.ndarray:
    """M_k = ∫_0^1 e^(-rate (1 - v)) v^k dv for k < count, rate >= 0.

    The recursion M_k = (1 - k M_(k-1)) / rate loses digits for small rates, where quadrature is
    exact.
    """
    if rate < 8:
        nodes, weights = 0.5 * (_QUADRATURE[0] + 1), 0.5 * _QUADRATURE[1]
        kernel = weights * np.exp(-rate * (1 - nodes))
        return np.array([np.sum(kernel * nodes**k) for k in range(count)])
    moments = [-np.expm1(-rate) / rate]
    for k in range(1, count):
        moments.append((1 - k * moments[-1]) / rate)
    return np.array(moments)


def multistep_weights(nodes: Sequence[float], rate: float) -> np.ndarray:
    """Weights w_j with ∑ w_j f(v_j) = ∫_0^1 e^(-rate (1 - v)) f(v) dv for polynomials f.

    Args:
        nodes: distinct places v_j of the known predictions in units of the step, which goes from
            0 to 1: 0 is the newest, older ones are negative, 1 is the step's end.
        rate: of the kernel; >= 0.

    Returns:
        One weight per node, exact for polynomials of degree below ``len(nodes)``.
    """
    powers = np.arange(len(nodes))
    vandermonde = np.asarray(nodes)[None, :] ** powers[:, None]
    return np.linalg.solve(vandermonde, _moments(rate, len(nodes)))


class Step(NamedTuple):
    """Coefficients of x_t = keep x_s + mu mu + ∑_j weights[j] q_j + noise z, the newest q first.

    q = a x0 + b eps is what the clock makes a polynomial of, in image coordinates: for y0 = x0 - mu
    what belongs to mu is gathered in its coefficient, so that no residual has to be formed.
    ``corrector`` are the weights when q at the step's end is known too, and first;
    ``corrector_mu`` replaces ``mu`` with them.
    """

    s: float
    a: float
    b: float
    keep: float
    mu: float
    weights: tuple[float, ...]
    noise: float
    corrector_mu: float
    corrector: tuple[float, ...]

    def quantity(self, prediction: Prediction) -> Tensor:
        """q of a prediction made at the step's start."""
        if self.b == 0 and self.a == 1:
            return prediction.x0
        if self.a == 0 and self.b == 1:
            return prediction.eps
        return torch.mul(prediction.eps, self.b).add_(prediction.x0, alpha=self.a)


def plan_steps(
    process: MRProcess, times: Tensor, *, order: int, eta: float, clock: Clock
) -> tuple[Step, ...]:
    """All coefficients of a run, in float64; they depend on the grid alone.

    The order grows by one a step up to ``order``.

    Args:
        process: of the states.
        times: decreasing float64 times, all above 0.
        order: of the polynomials, plus one.
        eta: stochasticity in [0, 1].
        clock: in which the polynomials are.
    """
    given = (process, tuple(times.tolist()), order, eta, clock)
    try:
        return _cached_plan(*given)
    except TypeError:  # a schedule of the user's that has no hash
        return _plan(*given)


def _plan(
    process: MRProcess, times: tuple[float, ...], order: int, eta: float, clock: Clock
) -> tuple[Step, ...]:
    tensor = torch.tensor(times, dtype=torch.float64)
    grid = points(process, tensor)
    reading = [clock.coordinate(point) for point in grid]
    a, b = (column.tolist() for column in clock.target.coefficients(process, tensor))
    steps = []
    for i, (s, t) in enumerate(itertools.pairwise(grid)):
        move = clock.transition(s, t, eta)
        length = reading[i + 1] - reading[i]
        known = list(range(i, max(-1, i - order), -1))
        nodes = [(reading[j] - reading[i]) / length for j in known]
        weights, mu = _weigh(move, nodes, [a[j] for j in known])
        corrector, corrector_mu = _weigh(move, [1.0, *nodes], [a[i + 1], *(a[j] for j in known)])
        steps.append(
            Step(
                s=s.t,
                a=a[i],
                b=b[i],
                keep=move.keep,
                mu=mu,
                weights=weights,
                noise=move.noise,
                corrector_mu=corrector_mu,
                corrector=corrector,
            )
        )
    return tuple(steps)


_cached_plan = lru_cache(maxsize=256)(_plan)


def _weigh(
    move: Transition, nodes: Sequence[float], a: Sequence[float]
) -> tuple[tuple[float, ...], float]:
    """Weights of the quantities at ``nodes``, and the coefficient of mu that goes with them."""
    weights = (move.gain * multistep_weights(nodes, move.rate)).tolist()
    # keep (x_s - mu) + mu + ∑ w (q - a mu)
    return tuple(weights), 1 - move.keep - sum(w * x for w, x in zip(weights, a, strict=True))
