"""The quality report: one self-contained page with a table, sliders and error maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mrdiff.cli.common.jobs import Job
from mrdiff.cli.common.pages import SIDE, embedded, template, thumbnail
from mrdiff.cli.sample.table import Quality, mean_quality
from mrdiff.metrics import PROTOCOLS
from mrdiff.metrics.quality import SSIM_SIGMA, SSIM_WINDOW
from mrdiff.photo import read_rgb
from mrdiff.photo.sheets import heat_map
from mrdiff.system.files import write_text
from mrdiff.system.names import LOWER_IS_BETTER, METRIC_TITLES

__all__ = ["write_report"]

_ERROR = 0.2  # of the image's range is the brightest colour


def _digits(name: str) -> int:
    return 2 if name.startswith("psnr") else 3


def _cells(row: Quality, name: str) -> Markup:
    """Before, after and gain of a metric, with the numbers to sort by."""
    before, after = row.before[name], row.after[name]
    gain = after - before
    better = gain < 0 if name in LOWER_IS_BETTER else gain > 0
    kind = "gain" if better else "loss" if gain else ""
    digits = _digits(name)
    values = ((before, ".", ""), (after, ".", ""), (gain, "+.", kind))
    cell = '<td data-value="{}" class="{}">{}</td>'
    return Markup("").join(
        Markup(cell).format(v, css, format(v, f"{sign}{digits}f")) for v, sign, css in values
    )


def _summary(row: Quality) -> str:
    """The numbers of a photo, beside its name."""
    return ", ".join(
        f"{METRIC_TITLES[name]} {before:.{_digits(name)}f} → {row.after[name]:.{_digits(name)}f}"
        for name, before in row.before.items()
    )


def _entry(job: Job, row: Quality) -> dict[str, Any]:
    assert job.reference is not None
    before, after, truth = (read_rgb(path) for path in (job.source, job.target, job.reference))
    error = heat_map((after - truth).abs().mean(0), brightest=_ERROR)
    shown = {"before": before, "after": after, "reference": truth, "error": error}
    return {
        "row": row,
        **{name: embedded(thumbnail(image)) for name, image in shown.items()},
        "large": max(before.shape[-2:]) > SIDE,
    }


def write_report(
    path: Path, rows: Mapping[Job, Quality], *, facts: str, protocol: str = "standard"
) -> None:
    """Write the page of measured photos, whole or not at all; ``facts`` is a line about the run."""
    entries = [_entry(job, row) for job, row in rows.items()]
    page = template("mrdiff.cli.sample", "report.html.j2").render(
        title=f"Restoration of {len(entries)} photos",
        facts=facts,
        photos=entries,
        mean=mean_quality(list(rows.values())),
        metrics=[*entries[0]["row"].before],
        titles=METRIC_TITLES,
        cells=_cells,
        summary=_summary,
        border=PROTOCOLS[protocol][0].crop_border,
        window=SSIM_WINDOW,
        sigma=SSIM_SIGMA,
        shrunk=SIDE if any(entry["large"] for entry in entries) else None,
        error_scale=round(_ERROR * 255),
    )
    write_text(path, page)
