"""The table of a run with references: quality of the degraded and of the restored photos."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from mrdiff.cli.common.jobs import Job
from mrdiff.cli.common.measuring import measure
from mrdiff.cli.common.tables import aligned
from mrdiff.metrics import Meter
from mrdiff.photo import PhotoError, read_rgb
from mrdiff.system.names import METRIC_TITLES
from mrdiff.system.text import shown

__all__ = ["Quality", "format_table", "mean_quality", "measure_job"]


@dataclass(frozen=True)
class Quality:
    """Metrics of one photo by name: before (degraded) and after (restored)."""

    name: str
    before: dict[str, float]
    after: dict[str, float]


def measure_job(job: Job, meter: Meter) -> Quality:
    """Measure the file that was written, and the input, against the reference."""
    assert job.reference is not None
    reference = read_rgb(job.reference)
    values: list[dict[str, float]] = []
    for path in (job.source, job.target):
        image = read_rgb(path)
        if image.shape != reference.shape:
            sizes = [f"{i.shape[-1]} x {i.shape[-2]}" for i in (reference, image)]
            raise PhotoError(f"{job.reference}: size {sizes[0]}, but {path} has {sizes[1]}")
        values.append(measure(meter, image, reference, path))
    return Quality(shown(job.relative.as_posix()), *values)


def mean_quality(rows: list[Quality]) -> Quality:
    """The means over all photos."""

    def mean(values: list[dict[str, float]]) -> dict[str, float]:
        return {name: fmean(value[name] for value in values) for name in values[0]}

    return Quality("mean", mean([r.before for r in rows]), mean([r.after for r in rows]))


def _change(before: float, after: float, digits: int) -> str:
    return f"{before:.{digits}f} -> {after:.{digits}f}"


def format_table(rows: list[Quality]) -> str:
    """A line a photo, ``degraded -> restored``, and the mean, then the gains of PSNR and LPIPS."""
    mean = mean_quality(rows)
    header = ["", *(METRIC_TITLES[name] for name in mean.before)]
    table = [header]
    for row in (*rows, mean):
        cells = (
            _change(before, row.after[name], 2 if name.startswith("psnr") else 4)
            for name, before in row.before.items()
        )
        table.append([row.name, *cells])
    lines = aligned(table)
    rule = "-" * max(map(len, lines))
    gains = []
    for name, digits, unit in (("psnr", 2, " dB"), ("lpips", 3, "")):
        if name in mean.before:
            before, after = mean.before[name], mean.after[name]
            gain = f"({after - before:+.{digits}f}{unit})"
            gains.append(f"mean {METRIC_TITLES[name]} {_change(before, after, digits)} {gain}")
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], "", *gains])
