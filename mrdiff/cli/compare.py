"""Side-by-side pictures: degraded, restored and, where there is one, the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mrdiff.cli.jobs import Job
from mrdiff.photo import from_pil, read_rgb, write_image

__all__ = ["comparison_paths", "label_strip", "side_by_side", "write_comparison"]

_GAP = 8  # white pixels between two panels


def comparison_paths(jobs: Sequence[Job], output: Path) -> dict[Job, Path]:
    """Where the side-by-side picture of each of all ``jobs`` is written: ``output/compare/…``.

    All are PNG: ``a.png`` for ``a.jpg``, but ``a.jpg.png`` if there is an ``a.png`` as well.
    """
    targets = {job: job.target.relative_to(output) for job in jobs}
    whole = {job: target.with_name(f"{target.name}.png") for job, target in targets.items()}
    short = {job: target.with_suffix(".png") for job, target in targets.items()}
    taken = Counter((*short.values(), *whole.values()))
    names = {job: short[job] if taken[short[job]] == 1 else whole[job] for job in jobs}
    return {job: output / "compare" / name for job, name in names.items()}


def label_strip(text: str, width: int, height: int) -> Tensor:
    """Black text on white, ``[3, height, width]`` in [0, 1]."""
    image = Image.new("RGB", (width, height), "white")
    font = ImageFont.load_default(size=max(10, int(0.6 * height)))
    ImageDraw.Draw(image).text((width // 2, height // 2), text, "black", font, anchor="mm")
    return from_pil(image)


def side_by_side(images: Sequence[Tensor], labels: Sequence[str]) -> Tensor:
    """One picture ``[3, H', W']`` in [0, 1] with a label above each image ``[3, H, W]``.

    Images of different heights are aligned at the top.
    """
    tallest = max(image.shape[-2] for image in images)
    strip = max(20, tallest // 16)
    panels: list[Tensor] = []
    for image, label in zip(images, labels, strict=True):
        height, width = image.shape[-2:]
        column = torch.ones(3, strip + tallest, width)
        column[:, :strip] = label_strip(label, width, strip)
        column[:, strip : strip + height] = image
        panels += [column, torch.ones(3, strip + tallest, _GAP)]
    return torch.cat(panels[:-1], dim=-1)


def write_comparison(job: Job, path: Path) -> None:
    """Write the comparison of a job that is done to ``path``.

    Raises:
        PhotoError: one of the files cannot be read, or the picture cannot be written.
    """
    paths = {"degraded": job.source, "restored": job.target}
    if job.reference is not None:
        paths["reference"] = job.reference
    picture = side_by_side([read_rgb(path) for path in paths.values()], list(paths))
    write_image(path, picture)
