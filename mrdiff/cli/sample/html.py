"""The quality report: one self-contained page with a table, sliders and error maps."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from mrdiff.cli.common.jobs import Job
from mrdiff.cli.sample.table import TITLES, Quality, mean_quality
from mrdiff.metrics import PROTOCOLS
from mrdiff.metrics.quality import SSIM_SIGMA, SSIM_WINDOW
from mrdiff.photo import read_rgb, to_pil
from mrdiff.photo.sheets import heat_map
from mrdiff.system.files import write_text

__all__ = ["write_report"]

_SIDE = 768  # pixels that a picture of the page is wide or high at most
_ERROR = 0.2  # of the image's range is the brightest colour
_LESS_IS_BETTER = ("lpips",)


def _embedded(image: Image.Image) -> str:
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=90, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _digits(name: str) -> int:
    return 2 if name.startswith("psnr") else 3


def _cells(row: Quality, name: str) -> Markup:
    """Before, after and gain of a metric, with the numbers to sort by."""
    before, after = row.before[name], row.after[name]
    gain = after - before
    better = gain < 0 if name in _LESS_IS_BETTER else gain > 0
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
        f"{TITLES[name]} {before:.{_digits(name)}f} → {row.after[name]:.{_digits(name)}f}"
        for name, before in row.before.items()
    )


def _entry(job: Job, row: Quality) -> dict[str, Any]:
    assert job.reference is not None
    before, after, truth = (read_rgb(path) for path in (job.source, job.target, job.reference))
    error = heat_map((after - truth).abs().mean(0), brightest=_ERROR)
    return {
        "row": row,
        "before": _embedded(to_pil(before)),
        "after": _embedded(to_pil(after)),
        "reference": _embedded(to_pil(truth)),
        "error": _embedded(to_pil(error)),
        "large": max(before.shape[-2:]) > _SIDE,
    }


def write_report(
    path: Path, rows: Mapping[Job, Quality], *, facts: str, protocol: str = "standard"
) -> None:
    """Write the page of measured photos, whole or not at all; ``facts`` is a line about the run."""
    entries = [_entry(job, row) for job, row in rows.items()]
    loader, strict = jinja2.PackageLoader("mrdiff.cli.sample", "templates"), jinja2.StrictUndefined
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=strict)
    page = environment.get_template("report.html.j2").render(
        title=f"Restoration of {len(entries)} photos",
        facts=facts,
        photos=entries,
        mean=mean_quality(list(rows.values())),
        metrics=[*entries[0]["row"].before],
        titles=TITLES,
        cells=_cells,
        summary=_summary,
        border=PROTOCOLS[protocol][0].crop_border,
        window=SSIM_WINDOW,
        sigma=SSIM_SIGMA,
        shrunk=_SIDE if any(entry["large"] for entry in entries) else None,
        error_scale=round(_ERROR * 255),
    )
    write_text(path, page)
