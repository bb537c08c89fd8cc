"""The plot of a sweep: quality against network calls and against seconds, from its rows alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter, NullLocator

from mrdiff.cli.sweep.report import TITLES, Recommendation, better, with_unit
from mrdiff.cli.sweep.rows import Row

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
    axes.set_xscale("log")
    axes.grid(True, color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def _limit(axes: Axes, found: Recommendation, rows: Sequence[Row]) -> None:
    """Leave what is far worse than most outside, the degraded input above all."""
    sign, metric = better(found.metric), found.metric
    means = [row.mean(metric) for row in rows]
    values = sorted(sign * mean for mean in means if math.isfinite(mean)) or [0.0]
    top, middle = values[-1], values[len(values) // 2]
    low = max(values[0], top - 4 * (top - middle)) if top > middle else values[0]
    margin = 0.08 * (top - low) or 0.1
    axes.set_ylim(*sorted((sign * (low - margin), sign * (top + margin))))
    before = found.before.mean(metric)
    inside = low - margin <= sign * before <= top + margin
    if inside:
        axes.axhline(before, color="0.4", linestyle="--", linewidth=1.2)
    text = f"degraded input {with_unit(metric, before)}{' (dashed)' if inside else ', outside'}"
    axes.text(0.02, 0.02, text, transform=axes.transAxes, color="0.35", fontsize=9)


def draw(rows: Sequence[Row], found: Recommendation, *, title: str) -> Figure:
    """Quality against NFE and against seconds, the recommended candidate thick, its run starred."""
    figure = Figure(figsize=(11, 6), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    runs = [row for row in rows if row.nfe]
    nfes = sorted({row.nfe for row in runs})
    _draw_curves(left, found, runs, "nfe")
    _draw_curves(right, found, runs, "seconds")
    _limit(left, found, runs)
    left.set_xticks(nfes, list(map(str, nfes)))
    left.xaxis.set_minor_locator(NullLocator())
    right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    right.xaxis.set_minor_formatter(NullFormatter())
    unit = " in dB" if found.metric.startswith("psnr") else ""
    direction = "higher" if better(found.metric) > 0 else "lower"
    left.set_ylabel(f"{TITLES[found.metric]}{unit} ({direction} is better)")
    left.set_xlabel("NFE (network calls)")
    right.set_xlabel("seconds an image")
    lines = left.get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle(title, fontsize=12)
    return figure
