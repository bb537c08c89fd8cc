"""What a sweep found: a table and the recommendation in words, both from its rows alone.

The recommended run is the one with the fewest network calls among those within a tolerance of
the best, in the metric's own units.
"""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mrdiff.cli.common.scores import better, number, with_unit
from mrdiff.cli.common.tables import aligned
from mrdiff.cli.sweep.rows import Row
from mrdiff.solvers.presets import DEFAULT_NAME, DEFAULT_NFE, make_sampler
from mrdiff.solvers.sampler import MRSampler
from mrdiff.system.names import MAX_PSNR, METRIC_TITLES

__all__ = ["Recommendation", "flags", "format_table", "recommend", "words"]

# Less than this is invisible: 0.1 dB is 2 % of the squared error.
TOLERANCE = {"psnr": 0.1, "psnr_y": 0.1, "ssim": 0.005, "ssim_y": 0.005, "lpips": 0.005}
_FEW = 16  # images; with less, the words warn


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """What follows from the rows for one metric."""

    metric: str
    choice: Row  # the recommended run
    best: Row  # of all within the budget
    runner_up: Row | None  # the best of another sampler that is not the same in effect
    default: Row | None  # mr-ode-2 at 5, if it was run
    before: Row  # the degraded input
    unlimited: Row  # what would be recommended without the budget
    others: Mapping[str, Row]  # what would be recommended by the other metrics
    runs: int  # how many were compared

    @property
    def improves(self) -> bool:
        """Whether the choice is better than the degraded input."""
        return gap(self.choice, self.before, self.metric)[0] > 0


def _valid(rows: Sequence[Row], metric: str, budget: float) -> list[Row]:
    """The runs within the budget whose images are all finite, the best first."""
    valid = [row for row in rows if 0 < row.nfe <= budget and not math.isnan(row.mean(metric))]
    return sorted(valid, key=lambda row: (-better(metric) * row.mean(metric), row.nfe))


def _choose(ranked: Sequence[Row], metric: str) -> Row:
    """The fewest calls within the tolerance of the best, then the better."""
    limit = TOLERANCE[metric] + 1e-9  # 27.0 lies within 0.1 of 27.1, whatever binary numbers say
    top = ranked[0].mean(metric)
    near = [row for row in ranked if abs(row.mean(metric) - top) <= limit or row is ranked[0]]
    return min(near, key=lambda row: row.nfe)


def recommend(rows: Sequence[Row], metric: str, *, budget: int | None = None) -> Recommendation:
    """Choose from the rows of a sweep, the input's among them, with at most ``budget`` calls.

    Raises:
        ValueError: no run within the budget has a value of the metric.
    """
    within, everything = (_valid(rows, metric, most) for most in (budget or math.inf, math.inf))
    if not within:
        raise ValueError(f"no run has a finite {METRIC_TITLES[metric]}")
    best, (before,) = within[0], [row for row in rows if row.nfe == 0]
    rivals = [row for row in within if row.label != best.label and row.scores != best.scores]
    default = [row for row in rows if (row.label, row.nfe) == (DEFAULT_NAME, DEFAULT_NFE)]
    ranked = {other: _valid(rows, other, budget or math.inf) for other in before.scores}
    return Recommendation(
        metric=metric,
        choice=_choose(within, metric),
        best=best,
        runner_up=rivals[0] if rivals else None,
        default=default[0] if default else None,
        before=before,
        unlimited=_choose(everything, metric),
        others={o: _choose(r, o) for o, r in ranked.items() if r and o != metric},
        runs=len(within),
    )


def flags(row: Row) -> list[str]:
    """The flags of ``sample.py`` that make this run; what a sampler has by itself is left out."""
    own = make_sampler(row.sampler, nfe=row.nfe)
    given = ["--sampler", row.sampler, "--nfe", str(row.nfe)]
    if isinstance(own, MRSampler) and row.settings["grid"] not in ("own", own.grid):
        given += ["--grid", row.settings["grid"]]
    if float(row.settings["temperature"]) != own.temperature:
        given += ["--temperature", row.settings["temperature"]]
    return given


def gap(a: Row, b: Row, metric: str) -> tuple[float, float | None]:
    """By how much ``a`` is better than ``b``, and the standard error of that over the images."""
    pairs = zip(a.values(metric), b.values(metric), strict=True)
    differences = [better(metric) * (x - y) for x, y in pairs]
    mean = statistics.fmean(differences)
    if len(differences) < 2 or not all(map(math.isfinite, differences)):
        return mean, None
    return mean, statistics.stdev(differences) / math.sqrt(len(differences))


def _compared(a: Row, b: Row, metric: str) -> str:
    """``better by 0.12 ± 0.03 dB``."""
    mean, error = gap(a, b, metric)
    size = with_unit(metric, abs(mean))
    if error is not None:
        number, _, unit = size.partition(" ")
        size = f"{number} ± {with_unit(metric, error).split()[0]} {unit}".rstrip()
    return f"{'better' if mean >= 0 else 'worse'} by {size}"


def _comparisons(found: Recommendation) -> list[str]:
    """A line for each run that the choice is compared with."""
    metric, choice = found.metric, found.choice
    lines = ["Compared with"]
    rows = {"the best, ": found.best, "": found.default, "the ": found.before}
    for name, row in rows.items():
        if row is not None and row != choice:
            value = with_unit(metric, row.mean(metric))
            lines.append(f"  {name}{row} ({value}): {_compared(choice, row, metric)}")
    if not found.improves:
        doubt = "the model does not suit these photos"
        lines.append(f"It does not improve the degraded input: {doubt}.")
    return lines


def _doubts(found: Recommendation) -> list[str]:
    """How far the numbers can be trusted."""
    lines, metric, rival = [], found.metric, found.runner_up
    count = len(found.before.scores[metric])
    if rival is not None:
        mean, error = gap(found.best, rival, metric)
        compared = _compared(found.best, rival, metric)
        unclear = ": within the noise" if error is None or mean < 2 * error else ""
        lines.append(f"The best, {found.best}, is {compared} than the runner-up, {rival}{unclear}.")
    if count > 1:
        lines.append(f"± is the standard error of the paired differences over {count} images.")
    if count < _FEW:
        few = f"{count} images decide" if count > 1 else "One image decides"
        luck = f"the best of {found.runs} runs is in part luck"
        lines.append(f"{few} little, and {luck}: --images {_FEW} or more say more.")
    if any(math.inf in r.scores[metric] for r in (found.before, found.choice, found.best)):
        lines.append(f"An image equal to its reference counts as {with_unit(metric, MAX_PSNR)}.")
    if found.others:
        others = (f"{METRIC_TITLES[name]} {row}" for name, row in found.others.items())
        lines.append(f"By the other metrics it would be: {'; '.join(others)}.")
    return lines


def words(found: Recommendation, *, checkpoint: str) -> str:
    """The recommendation for people, with the command that follows it."""
    choice, metric = found.choice, found.metric
    value = f"{METRIC_TITLES[metric]} {with_unit(metric, choice.mean(metric))}"
    tolerance = f"{TOLERANCE[metric]:g}{' dB' if metric.startswith('psnr') else ''}"
    if choice == found.best:
        why = f"It is the best of {found.runs} runs, and none with fewer calls is within"
    else:
        why = "It has the fewest network calls of the runs within"
    command = ["python", "sample.py", "--checkpoint", checkpoint, "--input", "PHOTOS"]
    command += ["--output", "RESTORED", *flags(choice)]
    cost = f"{choice.seconds:.3f} s an image"
    head = f"Recommended by {METRIC_TITLES[metric]}: {choice} ({value}, {cost})."
    lines = [head, "", f"  {shlex.join(command)}", "", f"{why} {tolerance} of the best."]
    lines += _comparisons(found)
    if found.unlimited.nfe > choice.nfe:
        gained = _compared(found.unlimited, choice, metric)
        lines.append(f"Without the budget it would be {found.unlimited}, {gained}.")
    return "\n".join([*lines, "", *_doubts(found)])


def format_table(rows: Sequence[Row], metric: str) -> str:
    """The metric of every candidate (a line) at every NFE (a column), the best of each starred."""
    runs = [row for row in rows if row.nfe]
    nfes = sorted({row.nfe for row in runs})
    cells = {(row.label, row.nfe): number(metric, row.mean(metric)) for row in runs}
    for nfe in nfes:
        for row in _valid([row for row in runs if row.nfe == nfe], metric, nfe)[:1]:
            cells[row.label, nfe] = "*" + cells[row.label, nfe]
    table = [["NFE", *map(str, nfes)]]
    for label in dict.fromkeys(row.label for row in runs):
        table.append([label, *(cells.get((label, nfe), "") for nfe in nfes)])
    seconds = [statistics.median(row.seconds for row in runs if row.nfe == nfe) for nfe in nfes]
    table.append(["seconds", *(f"{s:.3f}" for s in seconds)])
    (before,) = [row for row in rows if not row.nfe]
    title = (
        f"{METRIC_TITLES[metric]} (degraded input {with_unit(metric, before.mean(metric))}; * best)"
    )
    return "\n".join([title, *aligned(table)])
