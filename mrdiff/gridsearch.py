"""Optimised time grids: the few times that serve a trained model best.

The K - 1 inner times of a run of K network calls are chosen so that, on calibration images and
from the same noise, its result is closest to that of 100 calls (or best in a metric against the
ground truth). Only the times change: the solver and the cost of a run stay what they are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import optimize  # type: ignore[import-untyped]
from torch import Tensor

from mrdiff.denoiser import DenoiserLike
from mrdiff.metrics import LPIPS, measure
from mrdiff.noise import Noise, NoiseSource, draw
from mrdiff.process import MRProcess
from mrdiff.sampler import MRSampler
from mrdiff.timegrid import make_times, uniform_log_snr

NAMED_GRIDS = ("uniform_log_snr", "uniform_t", "power(2)")
SEARCH_METRICS = ("distance", "psnr", "ssim", "lpips")
MAXIMISED = ("psnr", "ssim")
GREY_LEVELS = 255
REFERENCE_CALLS = 100

_LOGIT_MAX = 4.0  # no step is more than e^8 times another
_CLOSEST = 2e-9  # times that are nearer than this are no grid
_FIRST_CHANGE, _LAST_CHANGE = 0.3, 0.01  # of the logarithm of a step, during a search

Value = Callable[[Tensor], float]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class FoundGrid:
    """The ``nfe + 1`` times, their value and that of :data:`NAMED_GRIDS`, and what it took.

    Seconds are without the reference; an evaluation is one run of the sampler on all images.
    """

    times: tuple[float, ...]
    before: Mapping[str, float]
    after: float
    evaluations: int
    seconds: float


class _Steps:
    """Times as free numbers: logarithms of the steps in log-SNR, relative to the last one.

    That one leads from the last call to where sigma is invisible. Any numbers give falling times,
    if not always so far apart as a grid's must be.
    """

    def __init__(self, process: MRProcess) -> None:
        self._process = process
        grid = uniform_log_snr(process, REFERENCE_CALLS)
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
    """Evaluates times, counts, and keeps the best."""

    def __init__(self, value: Value, maximise: bool, on_run: Callable[[int], None]) -> None:
        self._value, self._on_run = value, on_run
        self.sign = -1.0 if maximise else 1.0
        self.best, self.worst, self.times = math.inf, -math.inf, torch.empty(0)
        self.count = 0

    def cost(self, times: Tensor) -> float:
        """What is minimised; infinite if the sampler diverges or the times are no grid."""
        falling = bool((times.diff() < -_CLOSEST).all())
        cost = self.sign * self._value(times) if falling else math.inf
        self.count += 1
        self._on_run(self.count)
        if not math.isfinite(cost):
            return math.inf
        self.worst = max(self.worst, cost)
        if cost < self.best:
            self.best, self.times = cost, times
        return cost


def search_times(
    value: Value,
    process: MRProcess,
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
        process: the times are of this process.
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
    report = progress or (lambda label, done, most: None)
    search = _Search(value, maximise, lambda done: report(f"nfe {nfe}", min(done, total), total))
    steps = _Steps(process)
    grids = [make_times(name, process, nfe) for name in (*NAMED_GRIDS, "karras")]
    if warm is not None:
        grids.append(steps.refined(torch.tensor(warm, dtype=torch.float64), nfe))
    costs = [search.cost(times) for times in grids]
    if search.best == math.inf:
        raise ValueError(f"no named grid of nfe={nfe} gives a finite value")
    for start in sorted(range(len(grids)), key=costs.__getitem__)[:starts]:
        _follow(search, steps, grids[start], each)
    report(f"nfe {nfe}", total, total)
    before = dict(zip(NAMED_GRIDS, (search.sign * cost for cost in costs), strict=False))
    times, seconds = tuple(search.times.tolist()), time.perf_counter() - began
    return FoundGrid(times, before, search.sign * search.best, search.count, seconds)


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
    value: Value, process: MRProcess, nfes: Sequence[int], **options: Any
) -> dict[int, FoundGrid]:
    """:func:`search_times` (its ``options``) for several NFE, each warm from the one before."""
    found: dict[int, FoundGrid] = {}
    warm: Sequence[float] | None = None
    for nfe in sorted(set(nfes)):
        found[nfe] = search_times(value, process, nfe, warm=warm, **options)
        warm = found[nfe].times
    return found


def _replayed(noise: Noise, like: Tensor) -> Callable[[slice], NoiseSource]:
    """The same noise in every run: drawn once for the whole batch, given out by its rows."""
    drawn: dict[int, Tensor] = {}

    def part(rows: slice) -> NoiseSource:
        def source(step: int, shape: Sequence[int]) -> Tensor:
            if step not in drawn:
                drawn[step] = draw(noise, step, like)
            return drawn[step][rows]

        return source

    return part


class Calibration:
    """Calibration images, their noise and what is measured on them: times -> value.

    ``"distance"`` is the root mean square difference to the solution of 100 calls of order 3 from
    the same noise, in grey levels (255 to the unit). The others are means over the images.

    Args:
        denoiser: the model.
        mu: degraded images ``[B, C, H, W]`` in [0, 1], on the model's device.
        noise: as samplers take it; drawn once and used in every run.
        metric: one of :data:`SEARCH_METRICS`.
        truth: the ground truth like ``mu``, for the metrics other than distance.
        lpips: the network, for ``"lpips"``.
        chunk: images that go through the network at a time.
        options: of :class:`mrdiff.MRSampler`, but for ``nfe`` and ``grid``.
        progress: called as ``("reference", images done, images)``.

    Raises:
        ValueError: for an unknown metric or one without what it needs, or for a distance with
            eta > 0.
    """

    def __init__(
        self,
        denoiser: DenoiserLike,
        mu: Tensor,
        *,
        noise: Noise = None,
        metric: str = "distance",
        truth: Tensor | None = None,
        lpips: LPIPS | None = None,
        chunk: int = 4,
        options: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._options = dict(options or {})
        self._sampler(2, "uniform_t")  # wrong options are known before the reference is computed
        _check_metric(metric, self._options.get("eta", 0.0), truth, lpips)
        self.metric = metric
        self._denoiser, self._mu, self._lpips = denoiser, mu, lpips
        self._noise = _replayed(noise, mu)
        self._parts = [slice(i, i + chunk) for i in range(0, len(mu), chunk)]
        self._target = self._reference(progress) if metric == "distance" else truth

    def _sampler(self, nfe: int, grid: Any) -> MRSampler:
        return MRSampler(**{**self._options, "nfe": nfe, "grid": grid})

    @torch.no_grad()
    def _run(self, sampler: MRSampler, rows: slice) -> Tensor:
        return sampler(self._denoiser, self._mu[rows], noise=self._noise(rows))

    def _reference(self, progress: Progress | None) -> Tensor:
        exact = {"order": 3, "prediction": "data", "corrector": False, "grid": "uniform_log_snr"}
        sampler = MRSampler(**{**self._options, **exact, "nfe": REFERENCE_CALLS})
        done = []
        for rows in self._parts:
            done.append(self._run(sampler, rows))
            if progress is not None:
                progress("reference", min(rows.stop, len(self._mu)), len(self._mu))
        return torch.cat(done)

    def value(self, times: Tensor) -> float:
        """The distance or the metric with these times ``[nfe + 1]``, over all images."""
        assert self._target is not None
        sampler, total = self._sampler(len(times) - 1, times), 0.0
        for rows in self._parts:
            restored, target = self._run(sampler, rows), self._target[rows]
            if self.metric == "distance":
                total += float((restored - target).double().square().flatten(1).mean(1).sum())
            else:
                scores = measure(restored, target, names=[self.metric], lpips=self._lpips)
                total += float(scores[self.metric].sum())
        mean = total / len(self._mu)
        return GREY_LEVELS * math.sqrt(mean) if self.metric == "distance" else mean

    def search(self, nfes: Sequence[int], **options: Any) -> dict[int, FoundGrid]:
        """The best times for each NFE; ``options`` of :func:`search_times`."""
        more = {"maximise": self.metric in MAXIMISED, **options}
        return search_grids(self.value, self._denoiser.process, nfes, **more)


def _check_metric(metric: str, eta: float, truth: Tensor | None, lpips: LPIPS | None) -> None:
    if metric not in SEARCH_METRICS:
        raise ValueError(f"unknown metric {metric!r}: use one of {', '.join(SEARCH_METRICS)}")
    if metric == "distance" and eta > 0:
        raise ValueError(
            f"a stochastic sampler (eta={eta}) has no reference solution to come close to: "
            "name a metric and give the ground truth"
        )
    if metric != "distance" and truth is None:
        raise ValueError(f"the metric {metric} needs the ground truth")
    if metric == "lpips" and lpips is None:
        raise ValueError("the metric lpips needs its network")
