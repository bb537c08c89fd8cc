"""The tables of an evaluation for people, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mrdiff.cli.common.scores import arrow, better, number
from mrdiff.cli.common.tables import markdown
from mrdiff.cli.evaluate.published import published_of
from mrdiff.cli.evaluate.rows import Row, mean_rows
from mrdiff.system.names import METRIC_TITLES, SET_METRICS
from mrdiff.system.text import shown

__all__ = ["Results", "best_run", "cells", "unmeasured", "write_up"]


@dataclass(frozen=True)
class Results:
    """All that an evaluation found.

    Attributes:
        title: of the document.
        facts: of the run, by what they are of.
        rows: by task, the input's first.
        whole: whether the pairs are all there are, uncropped, as published numbers are of.
        published_as: by task the name that its test set is looked up by.
        backbone: whose features FID and KID compare.
    """

    title: str
    facts: Mapping[str, str]
    rows: Mapping[str, Sequence[Row]]
    whole: bool
    published_as: Mapping[str, str]
    backbone: str | None

    @property
    def titles(self) -> dict[str, str]:
        """Of the metrics; FID and KID with their backbone."""
        names = next(iter(self.rows.values()))[0].scores
        where = f" on {self.backbone}"
        return {n: METRIC_TITLES[n] + (where if n in SET_METRICS else "") for n in names}

    @property
    def every(self) -> list[Row]:
        """The rows of all tasks."""
        return [row for rows in self.rows.values() for row in rows]

    @property
    def mean(self) -> list[Row]:
        """The means over tasks, or the rows of the only one."""
        return self.every if len(self.rows) == 1 else mean_rows(self.every)


def unmeasured(results: Results) -> list[str]:
    """Lines on what could not be measured of some task."""
    lines = []
    for task, rows in results.rows.items():
        absent = [results.titles[n] for n, score in rows[0].scores.items() if math.isnan(score)]
        if absent:
            why = "a photo is too small for it or flat, or it is the only one"
            lines.append(shown(f"{task}: no {', '.join(absent)}: {why}"))
    return lines


def _order(row: Row, metric: str) -> float:
    value = better(metric) * row.scores[metric]
    return -math.inf if math.isnan(value) else value


def best_run(rows: Sequence[Row], metric: str) -> Row:
    """The best of all but the degraded input; of equal ones that with the fewest calls."""
    return max((row for row in rows if row.nfe), key=lambda row: (_order(row, metric), -row.nfe))


def cells(rows: Sequence[Row], titles: Mapping[str, str], *, mark: str = "") -> list[list[str]]:
    """A table with its head; ``mark`` stands on both sides of the best of each metric."""
    best = {name: best_run(rows, name) for name in titles}
    table = [["sampler", "NFE", *(f"{t} {arrow(n)}" for n, t in titles.items()), "seconds"]]
    for row in rows:
        scores = []
        for name in titles:
            marks = mark * (row is best[name] and not math.isnan(row.scores[name]))
            scores.append(f"{marks}{number(name, row.scores[name])}{marks}")
        seconds = f"{row.seconds:.3f}" if row.nfe else ""
        table.append([row.sampler, str(row.nfe or ""), *scores, seconds])
    return table


def _counted(count: int) -> str:
    return f"{count} photo" + "s" * (count != 1)


def _section(results: Results, task: str) -> list[str]:
    rows = results.rows[task]
    lines = [
        f"## {shown(task)}: {_counted(rows[0].photos)}",
        "",
        markdown(cells(rows, results.titles, mark="**")),
    ]
    if rows[0].right is not None:
        lines += ["", f"Judged right: {rows[0].right} of {rows[0].photos}."]
    if results.whole:
        for each in published_of(results.published_as[task], rows[0].photos):
            lines += ["", each.table]
    return [*lines, ""]


def write_up(results: Results) -> str:
    """The whole document."""
    lines = [f"# {shown(results.title)}", ""]
    lines += [f"* {name}: {shown(text)}" for name, text in results.facts.items()] + [""]
    if len(results.rows) > 1:
        lines += [f"## Mean over {len(results.rows)} tasks", ""]
        lines += [markdown(cells(results.mean, results.titles, mark="**")), ""]
        lines += ["![quality by NFE](evaluate.png)", ""]
    for task in results.rows:
        lines += _section(results, task)
    return "\n".join(lines)
