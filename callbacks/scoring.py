"""Measuring restored images by those metrics that can be measured here."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, device, distributed
from torchmetrics.utilities.distributed import gather_all_tensors

from mrdiff.metrics import Features, Meter
from mrdiff.metrics.sets import DISTANCES
from mrdiff.system.names import METRIC_TITLES, SET_METRICS, VALIDATION_METRICS

Scores = dict[str, Tensor]  # of images: a tensor ``[B]`` a metric
FEATURES = "features"  # among the scores, for the metrics of sets


class Scorer:
    """Metrics by name, those of them whose networks' weights are on this machine.

    Args:
        metrics: of ``mrdiff.system.names.VALIDATION_METRICS``.
        lpips_weights: as :class:`mrdiff.metrics.Meter` has it.
        vgg_weights: as :class:`mrdiff.metrics.Meter` has it.
        backbone: of ``mrdiff.system.names.BACKBONES``, for fid and kid.

    Raises:
        ValueError: for an unknown metric.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        *,
        lpips_weights: str | None = None,
        vgg_weights: str | None = None,
        backbone: str | None = None,
    ) -> None:
        unknown = [name for name in metrics if name not in VALIDATION_METRICS]
        if unknown:
            known = ", ".join(VALIDATION_METRICS)
            raise ValueError(f"unknown metrics {unknown}; known: {known}")
        self._metrics, self._lpips, self._vgg = metrics, lpips_weights, vgg_weights
        self._backbone = backbone
        self._told = False  # that some images are too small

    @cached_property
    def _meter(self) -> Meter:
        names = [name for name in self._metrics if name not in SET_METRICS]
        return Meter(names, lpips_weights=self._lpips, vgg_weights=self._vgg)

    @cached_property
    def _features(self) -> Features | None:
        if not {*self._metrics} & {*SET_METRICS}:
            return None
        file = {"alexnet": self._lpips, "vgg16": self._vgg}.get(self._backbone or "")
        return Features.find(self._backbone, file)

    @property
    def measured(self) -> list[str]:
        """All metrics that are; reads their networks once."""
        return [*self.of_images, *self.of_sets]

    @property
    def of_images(self) -> tuple[str, ...]:
        """Those of single images."""
        return self._meter.names

    @property
    def of_sets(self) -> list[str]:
        """Those of all images together."""
        return [name for name in SET_METRICS if name in self._metrics and self._features]

    def tell(self) -> None:
        """Say what is not measured, and why; and what the sets are measured by."""
        for name, reason in self._meter.missing.items():
            rank_zero_info(f"{METRIC_TITLES[name]} is not logged: {reason}")
        for name in SET_METRICS:
            if name in self._metrics:
                by = "features of " + self._features.name if self._features else "no weights here"
                rank_zero_info(f"{METRIC_TITLES[name]}: {by}")

    def to(self, device: device) -> None:
        self._meter.to(device)
        if self._features:
            self._features.to(device)

    def scores(self, image: Tensor, gt: Tensor) -> Scores:
        """Every metric that is measured; one for which the images are too small is empty.

        Under :data:`FEATURES` there is ``[B, D]``, if metrics of sets are measured.
        """
        height, width = gt.shape[-2:]
        fitting = self._meter.fitting(height, width)
        if not self._told and len(fitting) < len(self.of_images):
            self._told = True
            left_out = ", ".join(name for name in self.of_images if name not in fitting)
            rank_zero_info(f"note: validation images of {height}x{width} are without {left_out}")
        scores = self._meter(image, gt)
        scores = {name: scores.get(name, gt.new_zeros(0)) for name in self.of_images}
        return {**scores, FEATURES: self.features(image)} if self.of_sets else scores

    def features(self, images: Tensor) -> Tensor:
        """For the metrics of sets, ``[B, D]``; nothing of images too small for the network."""
        assert self._features is not None
        if min(images.shape[-2:]) < self._features.min_size:
            return images.new_zeros(0, 0)
        return self._features(images)


class SetScores:
    """Distances of all restored images from all true ones, over batches and processes."""

    def __init__(self) -> None:
        self._truth: list[Tensor] = []
        self._runs = dict[Any, list[Tensor]]()

    def start(self) -> None:
        """Forget what was added."""
        self._truth, self._runs = [], {}

    def add(self, truth: Tensor, runs: Mapping[Any, Tensor]) -> None:
        """The features of a batch of true images, and of what each run makes of them."""
        self._truth.append(truth)
        for run, features in runs.items():
            self._runs.setdefault(run, []).append(features)

    def values(self, metrics: Sequence[str]) -> dict[tuple[str, Any], float]:
        """By metric and run, on all processes; nan of fewer than two images."""
        if not self._truth:
            return {}
        truth, found = _gathered(self._truth), {}
        for run, parts in self._runs.items():
            features = _gathered(parts)
            for name in metrics:
                few = len(truth) < 2
                found[name, run] = math.nan if few else DISTANCES[name](features, truth)
        return found


def _gathered(parts: Sequence[Tensor]) -> Tensor:
    """The rows of all parts of all processes, which may have none."""
    rows = _joined(parts)
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    return _joined(gather_all_tensors(rows))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part for part in parts if len(part)] or [parts[0]])
