"""The plot of a sweep: quality against network calls and against seconds, from its rows alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from mrdiff.cli.common.curves import count_calls, limit
from mrdiff.cli.common.scores import better
from mrdiff.cli.sweep.report import Recommendation
from mrdiff.cli.sweep.rows import Row
from mrdiff.system.names import metric_label

__all__ = ["draw"]


def _draw_curves(axes: Axes, found: Recommendation, rows: Sequence[Row], horizontal: str) -> None:
    """One panel: a thin line a candidate, a colour a sampler; the recommended one is thick."""
    metric, dashes = found.metric, ("-", "--", ":", "-.")
    samplers = list(dict.fromkeys(row.sampler for row in rows))
    variants: Counter[str] = Counter()
    for label in dict.fromkeys(row.label for row in rows):
        mine = sorted((r for r in rows if r.label == label), key=lambda row: row.nfe)
        sampler, thick = mine[0].sampler, label == found.choice.label
        axes.plot(
            [getattr(row, horizontal) for row in mine],
            [row.mean(metric) for row in mine],
            label=label,
            color="black" if thick else f"C{samplers.index(sampler) % 10}",
            linestyle="-" if thick else dashes[variants[sampler] % len(dashes)],
            linewidth=3.0 if thick else 1.2,
            marker="o",
            markersize=6 if thick else 3,
            zorder=3 if thick else 2,
        )
        variants[sampler] += not thick
    x, y = getattr(found.choice, horizontal), found.choice.mean(metric)
    star = axes.plot(x, y, "*", color="gold", markersize=18, zorder=4, label="recommended")
    star[0].set_markeredgecolor("black")


def _near(metric: str, rows: Sequence[Row]) -> list[float]:
    """The means but for those that are far worse than most."""
    sign = better(metric)
    values = sorted(sign * v for row in rows if math.isfinite(v := row.mean(metric))) or [0.0]
    top, middle = values[-1], values[len(values) // 2]
    least = top - 4 * (top - middle) if top > middle else values[0]
    return [sign * value for value in values if value >= least]


def draw(rows: Sequence[Row], found: Recommendation, *, title: str) -> Figure:
    """Quality against NFE and against seconds, the recommended candidate thick, its run starred."""
    figure = Figure(figsize=(11, 6), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    runs = [row for row in rows if row.nfe]
    nfes = sorted({row.nfe for row in runs})
    _draw_curves(left, found, runs, "nfe")
    _draw_curves(right, found, runs, "seconds")
    limit(left, found.metric, _near(found.metric, runs), found.before.mean(found.metric))
    count_calls(left, nfes)
    right.set_xscale("log")
    right.grid(True, color="0.9")
    right.spines[["top", "right"]].set_visible(False)
    right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    right.xaxis.set_minor_formatter(NullFormatter())
    left.set_ylabel(metric_label(found.metric))
    right.set_xlabel("seconds an image")
    lines = left.get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle(title, fontsize=12)
    return figure
