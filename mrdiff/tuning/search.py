"""Optimised time grids: the few times that serve a trained model best.

The K - 1 inner times of a run of K network calls are chosen so that, on calibration images and
from the same noise, its result is closest to that of 100 calls, or best in a metric against the
ground truth (:class:`mrdiff.tuning.calibration.Calibration`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from mrdiff.diffusion.path import GaussianPath
from mrdiff.solvers.presets import make_sampler
from mrdiff.solvers.sampler import MRSampler
from mrdiff.solvers.timegrid import Grid, make_times, uniform_log_snr
from mrdiff.system.names import LOWER_IS_BETTER, METRICS

NAMED_GRIDS = ("uniform_log_snr", "uniform_t", "power(2)")
MAXIMISED = [name for name in METRICS if name not in LOWER_IS_BETTER]
GREY_LEVELS = 255
REFERENCE_CALLS = 100
_NEAREST = 5e-5  # sigma up to which times are searched for, in image units

_LOGIT_MAX = 4.0  # no step is more than e^8 times another
_CLOSEST = 2e-9  # times that are nearer than this are no grid
_FIRST_CHANGE, _LAST_CHANGE = 0.3, 0.01  # of the logarithm of a step, during a search

Value = Callable[[Tensor], float]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class FoundGrid:
    """The ``nfe + 1`` times from 1 to 0, their value and that of :data:`NAMED_GRIDS`.

    Seconds are without the reference; an evaluation is one run of the sampler on all images.
    """

    times: tuple[float, ...]
    before: Mapping[str, float]
    after: float
    evaluations: int
    seconds: float


class _Steps:
    """Times as free numbers: logarithms of the steps in log-SNR, relative to the last one.

    Any numbers give falling times, if not always so far apart as a grid's must be.
    """

    def __init__(self, process: GaussianPath) -> None:
        self._process = process
        grid = uniform_log_snr(process, REFERENCE_CALLS, sigma_end=_NEAREST)
        self._start = grid[:1]
        self._low, self._high = process.log_snr(grid[[0, -2]]).tolist()

    def times(self, logits: np.ndarray) -> Tensor:
        """Float64 ``[nfe + 1]`` of ``nfe - 1`` numbers."""
        shares = np.exp(np.append(np.clip(logits, -_LOGIT_MAX, _LOGIT_MAX), 0.0))
        reached = np.cumsum(shares)[:-1] / shares.sum()
        log_snr = self._low + (self._high - self._low) * reached
        return self._between_ends(log_snr)

    def logits(self, times: Tensor) -> np.ndarray:
        """The inverse of :meth:`times`, with the times moved within the ends."""
        least = 0.02 * (self._high - self._low)  # left for the last step
        log_snr = np.minimum(self._process.log_snr(times[:-1]).numpy(), self._high - least)
        steps = np.log(np.maximum(np.diff(np.append(log_snr, self._high)), 1e-4))
        clipped: np.ndarray = np.clip(steps[:-1] - steps[-1], -_LOGIT_MAX, _LOGIT_MAX)
        return clipped

    def refined(self, times: Tensor, nfe: int) -> Tensor:
        """The same spacing with ``nfe`` calls."""
        log_snr = self._process.log_snr(times[:-1]).numpy()
        places = np.linspace(0, len(log_snr) - 1, nfe)
        between = np.interp(places, np.arange(len(log_snr)), log_snr)
        return self._between_ends(between[1:])

    def _between_ends(self, log_snr: np.ndarray) -> Tensor:
        inner = self._process.t_of_log_snr(torch.from_numpy(log_snr))
        return torch.cat([self._start, inner, inner.new_zeros(1)])


class _Search:
    """Evaluates times, counts, and remembers the best."""

    def __init__(self, value: Value, maximise: bool, on_run: Callable[[int], None]) -> None:
        self._value, self._on_run = value, on_run
        self._sign = -1.0 if maximise else 1.0
        self.best, self.worst, self.times = math.inf, -math.inf, torch.empty(0)
        self.count = 0

    def cost(self, times: Tensor) -> float:
        """What is minimised; infinite if the sampler diverges or the times are no grid."""
        falling = bool((times.diff() < -_CLOSEST).all())
        cost = self._sign * self._value(times) if falling else math.inf
        self.count += 1
        self._on_run(self.count)
        if not math.isfinite(cost):
            return math.inf
        self.worst = max(self.worst, cost)
        if cost < self.best:
            self.best, self.times = cost, times
        return cost

    def found(self, costs: Sequence[float], began: float) -> FoundGrid:
        before = dict(zip(NAMED_GRIDS, (self._sign * cost for cost in costs), strict=False))
        # From 1, as all grids are given, though sampling starts later where alpha vanishes.
        times, seconds = (1.0, *self.times[1:].tolist()), time.perf_counter() - began
        return FoundGrid(times, before, self._sign * self.best, self.count, seconds)


def grid_sampler(options: Mapping[str, Any], nfe: int, grid: Grid) -> MRSampler:
    """The sampler of these options on ``grid``; ValueError if there is none that takes it."""
    sampler = make_sampler(options, nfe=nfe, grid=grid)
    assert isinstance(sampler, MRSampler)  # the others refuse a grid
    return sampler


def search_times(
    value: Value,
    process: GaussianPath,
    nfe: int,
    *,
    maximise: bool = False,
    warm: Sequence[float] | None = None,
    starts: int = 1,
    evaluations: int | None = None,
    progress: Progress | None = None,
) -> FoundGrid:
    """The ``nfe - 1`` inner times with the best value; never worse than the named grids.

    From the best named grid the search follows a quadratic model of the value (COBYQA of
    Ragonneau and Zhang), which needed half the runs of a simplex search or fewer.

    Args:
        value: of times ``[nfe + 1]``, float64.
        process: of the times.
        nfe: network calls; >= 2.
        maximise: whether more is better.
        warm: times found for another nfe, a start like the named grids.
        starts: how many of the best starts are followed.
        evaluations: at most so many from each; None for 25 a time.
        progress: called as ``("nfe K", done, at most)``.

    Raises:
        ValueError: nfe below 2, or a value that is never finite.
    """
    if nfe < 2:
        raise ValueError(f"a grid of nfe={nfe} has no inner times to choose: nfe is 2 or more")
    began, each = time.perf_counter(), evaluations or 25 * (nfe - 1)
    total = each * starts + len(NAMED_GRIDS) + 2

    def report(done: int) -> None:
        if progress is not None:
            progress(f"nfe {nfe}", min(done, total), total)

    search, steps = _Search(value, maximise, report), _Steps(process)
    grids = [make_times(name, process, nfe) for name in (*NAMED_GRIDS, "karras")]
    if warm is not None:
        grids.append(steps.refined(make_times(warm, process, len(warm) - 1), nfe))
    costs = [search.cost(times) for times in grids]
    if search.best == math.inf:
        raise ValueError(f"no named grid of nfe={nfe} gives a finite value")
    for start in sorted(range(len(grids)), key=costs.__getitem__)[:starts]:
        _follow(search, steps, grids[start], each)
    report(total)
    return search.found(costs, began)


def _follow(search: _Search, steps: _Steps, start: Tensor, evaluations: int) -> None:
    """Search from one start; COBYQA's first model takes 2 nfe - 1 evaluations."""
    radii = {"initial_tr_radius": _FIRST_CHANGE, "final_tr_radius": _LAST_CHANGE}
    optimize.minimize(
        lambda logits: min(search.cost(steps.times(logits)), search.worst),  # always finite
        steps.logits(start),
        method="COBYQA",
        options={**radii, "maxfev": max(evaluations, 2 * len(start))},
    )


def search_grids(
    value: Value, process: GaussianPath, nfes: Sequence[int], **options: Any
) -> dict[int, FoundGrid]:
    """:func:`search_times` (its ``options``) for several NFE, each warm from the one before."""
    found: dict[int, FoundGrid] = {}
    warm: Sequence[float] | None = None
    for nfe in sorted(set(nfes)):
        found[nfe] = search_times(value, process, nfe, warm=warm, **options)
        warm = found[nfe].times
    return found
