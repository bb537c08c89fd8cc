"""The figure of an evaluation: a panel a metric, a line a sampler, against network calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mrdiff.cli.common.curves import count_calls, limit
from mrdiff.cli.evaluate.rows import Row
from mrdiff.system.names import metric_label

__all__ = ["draw"]

_MARKERS = "osD^vPX*<>"
_COLUMNS = 3


def _panel(axes: Axes, rows: Sequence[Row], metric: str, name: str) -> None:
    (before,) = [row for row in rows if not row.nfe]
    runs = [row for row in rows if row.nfe]
    samplers = list(dict.fromkeys(row.sampler for row in runs))
    for index, sampler in enumerate(samplers):
        mine = sorted((row for row in runs if row.sampler == sampler), key=lambda row: row.nfe)
        axes.plot(
            [row.nfe for row in mine],
            [row.scores[metric] for row in mine],
            label=sampler,
            color=f"C{index % 10}",
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=6,
            linewidth=1.6,
        )
    limit(axes, metric, [row.scores[metric] for row in runs], before.scores[metric])
    count_calls(axes, sorted({row.nfe for row in runs}))
    axes.set_title(metric_label(metric, name), fontsize=11)


def draw(rows: Sequence[Row], titles: Mapping[str, str], *, title: str) -> Figure:
    """Of the rows of a task, or of means; luma is left out beside RGB."""
    twins = {f"{name}_y" for name in titles}
    measured = {name for name in titles if any(math.isfinite(row.scores[name]) for row in rows)}
    known = [name for name in titles if name in measured - twins] or list(titles)[:1]
    columns = 2 if len(known) == 4 else min(_COLUMNS, len(known))
    lines = math.ceil(len(known) / columns)
    figure = Figure(figsize=(4.4 * columns, 3.4 * lines + 0.8), dpi=100, layout="constrained")
    figure.get_layout_engine().set(hspace=0.06)  # type: ignore[union-attr, call-arg]
    panels = figure.subplots(lines, columns, squeeze=False).flatten().tolist()
    for axes, metric in zip(panels, known, strict=False):
        _panel(axes, rows, metric, titles[metric])
    for axes in panels[len(known) :]:
        axes.set_axis_off()
    legend = panels[0].get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=3 * columns, frameon=False)
    figure.suptitle(title, fontsize=12, parse_math=False)  # names may have a $
    return figure
