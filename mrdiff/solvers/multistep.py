"""The coefficients of the multistep solver: all of a run, in float64, before the first call.

With q = a x0 + b eps, what the clock makes a polynomial of, a step in image coordinates is

    x_t = decay x_s + shift mu + ∑_j weights_j q_j + noise z

over the last ``order`` quantities, the newest first. The weights integrate the polynomial through
them against the clock's kernel. For y0 = x0 - mu what belongs to mu is gathered in its coefficient,
so that no residual has to be formed. Once q at the step's end is known too, the corrector replaces
``weights`` and ``shift`` by others.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import Prediction
from mrdiff.diffusion.process import MRProcess, remembered
from mrdiff.solvers.clock import Clock, Transition, points

_QUADRATURE = np.polynomial.legendre.leggauss(32)


def _moments(rate: float, count: int) -> np.ndarray:
    """M_k = ∫_0^1 e^(-rate (1 - u)) u^k du for k < count, rate >= 0.

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
    """Weights w_j with ∑ w_j f(u_j) = ∫_0^1 e^(-rate (1 - u)) f(u) du, rate >= 0.

    They are exact for polynomials f of a degree below ``len(nodes)``. The distinct nodes u_j are in
    units of the step: 0 is the newest, older ones are negative, 1 is the step's end.
    """
    powers = np.arange(len(nodes))
    vandermonde = np.asarray(nodes)[None, :] ** powers[:, None]
    return np.linalg.solve(vandermonde, _moments(rate, len(nodes)))


class Step(NamedTuple):
    """The coefficients of one step from the time ``s``, as in the module's equations."""

    s: float
    a: float
    b: float
    decay: float
    shift: float
    weights: tuple[float, ...]
    noise: float
    corrected_shift: float
    corrected_weights: tuple[float, ...]  # of q at the step's end first

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
    """All steps of a run over decreasing float64 times, all above 0.

    ``order``, the number of quantities, grows by one a step; ``eta`` is in [0, 1].
    """
    return _plan(process, tuple(times.tolist()), order, eta, clock)


@remembered
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
        ahead = _weigh(move, nodes, [a[j] for j in known])
        corrected = _weigh(move, [1.0, *nodes], [a[i + 1], *(a[j] for j in known)])
        steps.append(Step(s.t, a[i], b[i], move.decay, *ahead, move.noise, *corrected))
    return tuple(steps)


def _weigh(
    move: Transition, nodes: Sequence[float], a: Sequence[float]
) -> tuple[float, tuple[float, ...]]:
    """The coefficient of mu, and the weights of the quantities at ``nodes``."""
    weights = (move.gain * multistep_weights(nodes, move.rate)).tolist()
    # decay (x_s - mu) + mu + ∑ w (q - a mu)
    return 1 - move.decay - sum(w * x for w, x in zip(weights, a, strict=True)), tuple(weights)
