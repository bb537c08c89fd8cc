"""The quality report: one self-contained page with a table, sliders and error maps."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from mrdiff.cli.common.heat import heat_map
from mrdiff.cli.common.jobs import Job
from mrdiff.cli.sample.table import TITLES, Row, mean_row
from mrdiff.metrics import PROTOCOLS
from mrdiff.metrics.quality import SSIM_SIGMA, SSIM_WINDOW
from mrdiff.photo import read_rgb, to_pil
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


def _cells(row: Row, name: str) -> Markup:
    """Before, after and gain of a metric, with the exact numbers to sort by."""
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


def _summary(row: Row) -> str:
    """The numbers of a photo, beside its name."""
    parts = []
    for name, before in row.before.items():
        digits = _digits(name)
        parts.append(f"{TITLES[name]} {before:.{digits}f} → {row.after[name]:.{digits}f}")
    return ", ".join(parts)


def _protocol(names: Sequence[str], border: int) -> list[str]:
    """What exactly the numbers are."""
    lines = [
        "The files are measured, as they were written: values of 8 bits, 16-bit ones rounded; "
        f"cropped at each side: {border} pixels. Means are over photos, whatever their size.",
        "PSNR = 10 log10(1 / MSE) over all three RGB channels, values in [0, 1].",
        f"SSIM (Wang et al. 2004): Gaussian window of {SSIM_WINDOW} pixels, sigma {SSIM_SIGMA}, "
        "mean over channels and over the places where the whole window lies within the photo.",
        "-Y: on BT.601 luma from 16 to 235 out of 255, as in MATLAB's rgb2ycbcr and the test "
        "scripts of IR-SDE, not rounded again; grey errors score 1.32 dB more than on RGB.",
    ]
    if "lpips" in names:
        lines.append(
            "LPIPS v0.1 with AlexNet (Zhang et al. 2018) on the whole photo; less is better."
        )
    return lines


def _entry(job: Job, row: Row) -> dict[str, Any]:
    """What the page needs of a photo."""
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
    path: Path, rows: Mapping[Job, Row], *, facts: str, protocol: str = "standard"
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: of the page.
        rows: the measured photos, at least one.
        facts: a line about the run: model, sampler, calls.
        protocol: with which the photos were measured.

    Raises:
        PhotoError: a photo cannot be read any more, or the page cannot be written.
    """
    entries = [_entry(job, row) for job, row in rows.items()]
    names = list(entries[0]["row"].before)
    loader = jinja2.PackageLoader("mrdiff.cli.sample", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        title=f"Restoration of {len(entries)} photos",
        facts=facts,
        photos=entries,
        mean=mean_row(list(rows.values())),
        metrics=names,
        titles=TITLES,
        cells=_cells,
        summary=_summary,
        protocol=_protocol(names, PROTOCOLS[protocol][0].crop_border),
        shrunk=_SIDE if any(entry["large"] for entry in entries) else None,
        error_scale=round(_ERROR * 255),
    )
    write_text(path, page)
