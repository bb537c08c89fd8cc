"""How the values of metrics are shown: digits, units and directions; free of torch."""

from __future__ import annotations

import math

from mrdiff.system.names import LOWER_IS_BETTER

__all__ = ["arrow", "better", "number", "with_unit"]

_TWO_DIGITS = ("psnr", "psnr_y", "fid", "niqe", "piqe")


def better(metric: str) -> int:
    """1 if higher values of the metric are better, -1 if lower ones are."""
    return -1 if metric in LOWER_IS_BETTER else 1


def arrow(metric: str) -> str:
    """Which way is better."""
    return "↑" if better(metric) > 0 else "↓"


def number(metric: str, value: float) -> str:
    """With as many digits as mean something; a dash for what could not be measured."""
    digits = 2 if metric in _TWO_DIGITS else 4
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def with_unit(metric: str, value: float) -> str:
    """``27.31 dB``, or a plain number of a metric without a unit."""
    return number(metric, value) + (" dB" if metric.startswith("psnr") else "")
