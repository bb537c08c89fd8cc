"""Measuring the photos of a command against their references."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from mrdiff.cli.common.errors import CommandError
from mrdiff.metrics import Meter
from mrdiff.photo import PhotoError
from mrdiff.system.names import METRIC_TITLES, METRICS

__all__ = ["find_meter", "measure"]


def find_meter(options: argparse.Namespace, names: Sequence[str] = METRICS) -> Meter:
    """Those of the metrics that can be measured here.

    Raises:
        CommandError: ``--metric`` cannot.
        ValueError: of our own kinds, for ``--lpips_weights`` that cannot be used.
    """
    meter = Meter(names, lpips_weights=options.lpips_weights)
    if options.metric in meter.missing:  # LPIPS is the only one that may be
        message = "--metric lpips needs AlexNet's features: give --lpips_weights FILE"
        raise CommandError(message, status=2)
    return meter


def measure(meter: Meter, image: Tensor, reference: Tensor, file: str | Path) -> dict[str, float]:
    """Every metric of an image ``[3, H, W]`` that was made from ``file``.

    Raises:
        PhotoError: it is too small for one of them.
    """
    height, width = image.shape[-2:]
    if small := {*meter.names} - {*meter.fitting(height, width)}:
        titles = ", ".join(METRIC_TITLES[name] for name in meter.names if name in small)
        raise PhotoError(f"{file}: {width} x {height} px are too few for {titles}")
    values = meter(image[None], reference[None])
    return {name: float(value[0]) for name, value in values.items()}
