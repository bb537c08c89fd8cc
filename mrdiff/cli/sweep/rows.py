"""What a sweep measured (:class:`Row`) and its files, without torch."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mrdiff.system.files import write_text
from mrdiff.system.names import MAX_PSNR, METRICS

__all__ = ["SETTINGS", "Row", "read_csv", "write_csv"]

SETTINGS = ("order", "eta", "grid", "prediction", "corrector", "temperature")
_PLAIN = ("label", "nfe", "sampler", *SETTINGS, "seconds")


@dataclass(frozen=True)
class Row:
    """One candidate at one NFE on all images, or the degraded input itself (nfe 0)."""

    label: str
    nfe: int
    sampler: str  # empty for the input
    settings: Mapping[str, str]  # of SETTINGS; empty text where the sampler has no such option
    seconds: float  # the median over the images
    scores: Mapping[str, tuple[float, ...]]  # by metric; the same order of images in all rows

    def values(self, metric: str) -> list[float]:
        """One an image, to compare by: of an image equal to its reference :data:`MAX_PSNR`."""
        return [min(value, MAX_PSNR) for value in self.scores[metric]]

    def mean(self, metric: str) -> float:
        """Of :meth:`values`, over the images."""
        return statistics.fmean(self.values(metric))

    def __str__(self) -> str:
        return f"{self.label} at NFE {self.nfe}" if self.nfe else "degraded input"


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One line a row: the means of the metrics, then their values image by image."""
    metrics, text = list(rows[0].scores), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_PLAIN, *metrics, *(name + "_each" for name in metrics)])
    for row in rows:
        plain = [row.label, row.nfe, row.sampler, *row.settings.values(), row.seconds]
        means = [round(row.mean(name), 6) for name in metrics]
        each = [";".join(map(repr, row.scores[name])) for name in metrics]
        writer.writerow([*plain, *means, *each])
    write_text(path, text.getvalue())


def read_csv(path: Path) -> list[Row]:
    """The rows that :func:`write_csv` wrote."""
    rows = []
    for line in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
        metrics = [name for name in METRICS if name in line]
        scores = {name: tuple(map(float, line[name + "_each"].split(";"))) for name in metrics}
        label, nfe, sampler, *settings, seconds = (line[name] for name in _PLAIN)
        given = dict(zip(SETTINGS, settings, strict=True))
        rows.append(Row(label, int(nfe), sampler, given, float(seconds), scores))
    return rows
