"""Calibration of time grids: what a trained model makes of some images with given times."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mrdiff.diffusion.wrappers import DenoiserLike
from mrdiff.metrics import Meter
from mrdiff.solvers.noise import Noise, NoiseSource, RunNoise
from mrdiff.solvers.sampler import MRSampler
from mrdiff.system.names import SEARCH_METRICS
from mrdiff.tuning.search import (
    GREY_LEVELS,
    MAXIMISED,
    REFERENCE_CALLS,
    FoundGrid,
    Progress,
    grid_sampler,
    search_grids,
)


def _replayed(noise: Noise, like: Tensor) -> Callable[[slice], NoiseSource]:
    """The same noise in every run: drawn once for the whole batch, given out by its rows."""
    drawn: dict[int, Tensor] = {}

    def source(rows: slice, step: int, shape: Sequence[int]) -> Tensor:
        if step not in drawn:
            drawn[step] = RunNoise(noise, like).draw(step)
        return drawn[step][rows]

    return lambda rows: partial(source, rows)


class Calibration:
    """Calibration images, their noise and what is measured on them: times -> value.

    ``"distance"`` is the root mean square difference to the solution of 100 calls of order 3 from
    the same noise, in grey levels (255 to the unit). The others are means over the images.

    Args:
        denoiser: the model.
        mu: degraded images ``[B, C, H, W]`` in [0, 1], on the model's device.
        noise: as samplers take it; drawn once and used in every run.
        metric: one of :data:`mrdiff.system.names.SEARCH_METRICS`.
        truth: clean images like ``mu``, for the metrics other than distance.
        meter: that measures the metric; None makes one.
        chunk: images that go through the network at a time.
        options: of :func:`mrdiff.make_sampler`, but for ``nfe`` and ``grid``.
        progress: called as ``("reference", images done, images)``.

    Raises:
        ValueError: options of no sampler with a grid, an unknown metric or one without what it
            needs, or a distance with eta > 0.
    """

    def __init__(
        self,
        denoiser: DenoiserLike,
        mu: Tensor,
        *,
        noise: Noise = None,
        metric: str = "distance",
        truth: Tensor | None = None,
        meter: Meter | None = None,
        chunk: int = 4,
        options: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._options = dict(options or {})
        eta = grid_sampler(self._options, 2, "uniform_t").eta  # wrong options are known at once
        _check_metric(metric, eta, truth)
        self.metric = metric
        self._denoiser, self._mu = denoiser, mu
        if metric != "distance":
            self._meter = (Meter([metric]) if meter is None else meter).to(mu.device)
            if metric not in self._meter.fitting(*mu.shape[-2:]):
                why = self._meter.missing.get(metric, "the images are too small")
                raise ValueError(f"cannot search by {metric}: {why}")
        self._noise = _replayed(noise, mu)
        self._parts = [slice(i, i + chunk) for i in range(0, len(mu), chunk)]
        self._target = self._reference(progress) if metric == "distance" else truth

    @torch.no_grad()
    def _run(self, sampler: MRSampler, rows: slice) -> Tensor:
        return sampler(self._denoiser, self._mu[rows], noise=self._noise(rows))

    def _reference(self, progress: Progress | None) -> Tensor:
        exact = {"order": 3, "prediction": "data", "corrector": False, "average": False}
        options = {**self._options, **exact}
        sampler = grid_sampler(options, REFERENCE_CALLS, "uniform_log_snr")
        done = []
        for rows in self._parts:
            done.append(self._run(sampler, rows))
            if progress is not None:
                progress("reference", min(rows.stop, len(self._mu)), len(self._mu))
        return torch.cat(done)

    def value(self, times: Tensor) -> float:
        """The distance or the metric with these times ``[nfe + 1]``, over all images."""
        assert self._target is not None
        sampler, total = grid_sampler(self._options, len(times) - 1, times), 0.0
        for rows in self._parts:
            restored, target = self._run(sampler, rows), self._target[rows]
            if self.metric == "distance":
                total += float((restored - target).cpu().double().square().flatten(1).mean(1).sum())
            else:
                total += float(self._meter(restored, target)[self.metric].sum())
        mean = total / len(self._mu)
        return GREY_LEVELS * math.sqrt(mean) if self.metric == "distance" else mean

    def search(self, nfes: Sequence[int], **options: Any) -> dict[int, FoundGrid]:
        """The best times for each NFE; ``options`` of :func:`.search_times`."""
        more = {"maximise": self.metric in MAXIMISED, **options}
        return search_grids(self.value, self._denoiser.process, nfes, **more)


def _check_metric(metric: str, eta: float, truth: Tensor | None) -> None:
    if metric not in SEARCH_METRICS:
        raise ValueError(f"unknown metric {metric!r}: use one of {', '.join(SEARCH_METRICS)}")
    if metric == "distance" and eta > 0:
        raise ValueError(
            f"a stochastic sampler (eta={eta}) has no reference solution to come close to: "
            "name a metric and give the ground truth"
        )
    if metric != "distance" and truth is None:
        raise ValueError(f"the metric {metric} needs the ground truth")
