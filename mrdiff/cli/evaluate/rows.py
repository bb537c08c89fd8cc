"""The table of an evaluation: a row a task, sampler and NFE, and one of each degraded input."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mrdiff.cli.evaluate.parts import INPUT, TRUTH, Part
from mrdiff.cli.evaluate.runs import Run
from mrdiff.metrics.sets import DISTANCES
from mrdiff.system.files import write_text
from mrdiff.system.names import MAX_PSNR

__all__ = ["Row", "mean_rows", "rows_of", "write_csv"]

_MEAN = "mean over tasks"


@dataclass(frozen=True)
class Row:
    """Means over the photos of a task, or over tasks; nfe 0 is the degraded input itself.

    ``seconds`` are the median; ``right`` is how many were judged to be of the task, if they were
    judged; ``scores`` are NaN where one of the photos could not be measured.
    """

    task: str
    sampler: str
    nfe: int
    photos: int
    right: int | None
    seconds: float
    scores: Mapping[str, float]


def rows_of(
    task: str, parts: Sequence[Part], runs: Sequence[Run], metrics: Sequence[str], *, judged: bool
) -> list[Row]:
    """The rows of a task, the input's first, from what is kept of its photos."""
    right = sum(p.judged is not None and p.judged[0] == task for p in parts) if judged else None

    def row(label: str, nfe: int, key: str) -> Row:
        seconds = statistics.median(p.seconds.get(key, 0.0) for p in parts)
        scores = {name: _score(name, key, parts) for name in metrics}
        return Row(task, label, nfe, len(parts), right, round(seconds, 6), scores)

    return [row(INPUT, 0, INPUT), *(row(run.label, run.nfe, run.key) for run in runs)]


def _score(metric: str, key: str, parts: Sequence[Part]) -> float:
    if metric in DISTANCES:
        return _distance(metric, key, parts)
    most = MAX_PSNR if metric.startswith("psnr") else math.inf
    return round(statistics.fmean(min(part.scores[key][metric], most) for part in parts), 6)


def _distance(metric: str, key: str, parts: Sequence[Part]) -> float:
    """Between the photos of a run and the clean ones; NaN of less than two, or too small ones."""
    if len(parts) < 2 or any(key not in part.features for part in parts):
        return math.nan
    ours, truth = (torch.stack([p.features[name] for p in parts]) for name in (key, TRUTH))
    return round(DISTANCES[metric](ours, truth), 6)


def mean_rows(rows: Sequence[Row]) -> list[Row]:
    """The means over tasks, each counting once, however many photos it has."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.sampler, row.nfe), []).append(row)
    return [_mean(*of, members) for of, members in groups.items()]


def _mean(sampler: str, nfe: int, rows: Sequence[Row]) -> Row:
    scores = {name: statistics.fmean(row.scores[name] for row in rows) for name in rows[0].scores}
    seconds = statistics.fmean(row.seconds for row in rows)
    return Row(_MEAN, sampler, nfe, sum(row.photos for row in rows), None, seconds, scores)


def write_csv(path: Path, rows: Sequence[Row], backbone: str | None) -> None:
    """One line a row; FID and KID are named with their backbone."""
    text, metrics = io.StringIO(), list(rows[0].scores)
    names = [f"{name}_{backbone}" if name in DISTANCES else name for name in metrics]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", "sampler", "nfe", "photos", "judged_right", "seconds", *names])
    for row in rows:
        right = "" if row.right is None else row.right
        plain = [row.task, row.sampler, row.nfe, row.photos, right, row.seconds]
        scores = (row.scores[name] for name in metrics)
        writer.writerow([*plain, *("" if math.isnan(score) else score for score in scores)])
    write_text(path, text.getvalue())
