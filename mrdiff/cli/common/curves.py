"""Curves of a metric against network calls: what several figures have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from mrdiff.cli.common.scores import with_unit

__all__ = ["count_calls", "limit"]


def count_calls(axes: Axes, nfes: Sequence[int]) -> None:
    """A logarithmic axis of network calls, with those numbers alone."""
    axes.set_xscale("log")
    axes.set_xticks(nfes, list(map(str, nfes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("NFE (network calls)")


def limit(axes: Axes, metric: str, means: Sequence[float], before: float) -> None:
    """Show a range with all of ``means``, and the degraded input, ``before``, as the scale allows.

    That is a dashed line if it lies within, and is told in words, below the curves, in any case.
    """
    values = [mean for mean in means if math.isfinite(mean)] or [0.0]
    low, top = min(values), max(values)
    height = (top - low) or 0.02 * abs(top) or 0.1
    low, top = low - 0.2 * height, top + 0.08 * height
    axes.set_ylim(low, top)
    inside = low <= before <= top
    if inside:
        axes.axhline(before, color="0.4", linestyle="--", linewidth=1.2)
    text = f"degraded input {with_unit(metric, before)}{' (dashed)' if inside else ', outside'}"
    axes.text(0.02, 0.02, text, transform=axes.transAxes, color="0.35", fontsize=9)
    axes.grid(True, color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
