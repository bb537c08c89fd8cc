"""The table of a run with references: quality of the degraded and of the restored photos."""

from __future__ import annotations

from dataclasses import dataclass

from mrdiff.cli.common.jobs import Job
from mrdiff.metrics import LPIPS, measure
from mrdiff.photo import PhotoError, read_rgb

__all__ = ["TITLES", "Row", "format_table", "mean_row", "measure_job"]

TITLES = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "psnr_y": "PSNR-Y",
    "ssim_y": "SSIM-Y",
    "lpips": "LPIPS",
}


@dataclass(frozen=True)
class Row:
    """Metrics of one photo by name: before (degraded) and after (restored)."""

    name: str
    before: dict[str, float]
    after: dict[str, float]


def measure_job(job: Job, lpips: LPIPS | None = None, protocol: str = "standard") -> Row:
    """Measure the file that was written, and the input, against the reference.

    Raises:
        PhotoError: the reference cannot be read or has another size.
    """
    assert job.reference is not None
    reference = read_rgb(job.reference)[None]
    values: list[dict[str, float]] = []
    for path in (job.source, job.target):
        image = read_rgb(path)[None]
        if image.shape != reference.shape:
            sizes = [f"{i.shape[-1]} x {i.shape[-2]}" for i in (reference, image)]
            raise PhotoError(f"{job.reference}: size {sizes[0]}, but {path} has {sizes[1]}")
        try:
            measured = measure(image, reference, lpips=lpips, protocol=protocol)
        except ValueError as error:  # too small a photo for SSIM's window or for LPIPS
            raise PhotoError(f"{path}: {error}") from error
        values.append({name: float(value[0]) for name, value in measured.items()})
    return Row(job.relative.as_posix(), *values)


def _cell(name: str, before: float, after: float) -> str:
    digits = 2 if name.startswith("psnr") else 4
    return f"{before:.{digits}f} -> {after:.{digits}f}"


def mean_row(rows: list[Row]) -> Row:
    """The means of all photos as a row."""
    names = rows[0].before

    def mean(values: list[dict[str, float]]) -> dict[str, float]:
        return {name: sum(v[name] for v in values) / len(values) for name in names}

    return Row("mean", mean([r.before for r in rows]), mean([r.after for r in rows]))


def format_table(rows: list[Row]) -> str:
    """The table as text, a line a photo and the mean, then the gains of PSNR and LPIPS.

    Args:
        rows: at least one; each cell reads ``degraded -> restored``.
    """
    mean = mean_row(rows)
    header = ["", *(TITLES[name] for name in mean.before)]
    body = [
        [row.name, *(_cell(name, row.before[name], row.after[name]) for name in row.before)]
        for row in (*rows, mean)
    ]
    table = [header, *body]
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(map(str.rjust, line[1:], widths[1:]))]).rstrip()
        for line in table
    ]
    rule = "-" * max(map(len, lines))
    gains = [_gain("PSNR", mean.before["psnr"], mean.after["psnr"], 2, " dB")]
    if "lpips" in mean.before:
        gains.append(_gain("LPIPS", mean.before["lpips"], mean.after["lpips"], 3, ""))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], "", *gains])


def _gain(title: str, before: float, after: float, digits: int, unit: str) -> str:
    change = f"{after - before:+.{digits}f}{unit}"
    return f"mean {title} {before:.{digits}f} -> {after:.{digits}f} ({change})"
