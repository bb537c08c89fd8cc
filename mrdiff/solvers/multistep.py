"""The coefficients of the multistep solver: all of a run, in float64, before the first call.

The weights of a :class:`.Step` integrate the polynomial through the last ``order`` quantities
against the clock's kernel. Once q at the step's end is known too, the corrector replaces them by
those of the polynomial that goes through it as well: the next step adds the difference.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from mrdiff.diffusion.path import GaussianPath, remembered
from mrdiff.solvers.clock import Clock, points
from mrdiff.solvers.run import Step

_QUADRATURE = np.polynomial.legendre.leggauss(32)


def _moments(rate: float, count: int) -> np.ndarray:
    """M_k, the mean of u^k in [0, 1] under e^(-rate (1 - u)), k < count; rate in [0, inf].

    The recursion M_k = (1 - k M_(k-1) (1 - e^-rate) / rate) / (1 - e^-rate) loses digits for small
    rates, where quadrature is exact.
    """
    if rate < 8:
        nodes, weights = 0.5 * (_QUADRATURE[0] + 1), 0.5 * _QUADRATURE[1]
        kernel = weights * np.exp(-rate * (1 - nodes))
        return np.array([np.sum(kernel * nodes**k) for k in range(count)]) / np.sum(kernel)
    moments = [1.0]
    for k in range(1, count):
        moments.append(-1 / np.expm1(-rate) - k * moments[-1] / rate)
    return np.array(moments)


def multistep_weights(nodes: Sequence[float], rate: float) -> np.ndarray:
    """Weights w_j with ∑ w_j f(u_j) the mean of f in [0, 1] under e^(-rate (1 - u)).

    They are exact for polynomials f of a degree below ``len(nodes)``. The distinct nodes u_j are in
    units of the step: 0 is the newest, older ones are negative, 1 is the step's end.
    """
    powers = np.arange(len(nodes))
    vandermonde = np.asarray(nodes)[None, :] ** powers[:, None]
    return np.linalg.solve(vandermonde, _moments(rate, len(nodes)))


def plan_steps(
    path: GaussianPath,
    times: Sequence[float],
    *,
    order: int,
    eta: float,
    clock: Clock,
    corrector: bool = False,
) -> tuple[Step, ...]:
    """All steps of a run over decreasing times, all above 0.

    ``order``, the number of quantities, grows by one a step; ``eta`` is in [0, inf].
    """
    return _plan(path, tuple(times), order, eta, clock, corrector)


@remembered
def _plan(
    path: GaussianPath,
    times: tuple[float, ...],
    order: int,
    eta: float,
    clock: Clock,
    corrector: bool,
) -> tuple[Step, ...]:
    tensor = torch.tensor(times, dtype=torch.float64)
    grid = points(path, tensor)
    reading = [clock.coordinate(point) for point in grid]
    columns = (column.tolist() for column in clock.target.scaled(path, tensor, 1.0)[:2])
    targets = list(zip(*columns, strict=True))
    steps, undone = list[Step](), np.zeros(1)
    for i, (s, t) in enumerate(itertools.pairwise(grid)):
        move = clock.transition(s, t, eta)
        length = reading[i + 1] - reading[i]
        known = range(i, max(-1, i - order), -1)
        nodes = [(reading[j] - reading[i]) / length for j in known]
        ahead = move.gain * multistep_weights(nodes, move.rate)
        weights = move.decay * undone
        weights[: len(ahead)] += ahead
        steps.append(Step(s.t, move.decay, tuple(weights.tolist()), move.noise, *targets[i]))
        if corrector:
            right = move.gain * multistep_weights([1.0, *nodes], move.rate)
            undone = right - np.array([0.0, *ahead])
        else:
            undone = np.zeros(min(i + 2, order))
    return tuple(steps)
