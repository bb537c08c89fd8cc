"""The sheet of ``mrdiff preview``: pairs in strips, degraded | clean | mask | difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from mrdiff.cli.preview.report import Drawn, input_psnr
from mrdiff.photo import composite, to_pil

__all__ = ["difference", "draw_sheet"]

_LEAST, _MOST = 160, 320  # px: short side of small tiles, long side of large ones
_GAP, _LINE, _TEXT = 6, 22, 14
_WIDTH = 1640  # px, unless one strip is wider
_INK, _FRAME, _BAR = (32, 32, 32), (200, 200, 200), (225, 225, 225)
_GAINS = (1, 2, 5, 10, 20, 50, 100)


def difference(lq: Tensor, gt: Tensor) -> tuple[Tensor, int]:
    """``lq - gt`` about middle grey, amplified until it can be seen.

    Returns:
        The picture ``[C, H, W]`` in [0, 1], grey where nothing was changed, and the largest of
        :data:`_GAINS` by which at most one value in a hundred is cut off.
    """
    change = torch.nan_to_num(lq.float() - gt.float())
    size = change.abs().flatten()
    large = float(size.kthvalue(math.ceil(0.99 * size.numel())).values)
    gain = max((g for g in _GAINS if g * large <= 0.5), default=1)
    return (0.5 + gain * change).clamp(0, 1), gain if large else 1


def _tile(image: Tensor) -> Image.Image:
    """``[C, H, W]`` as a tile: small ones enlarged by a whole factor, large ones reduced."""
    picture = to_pil(composite(torch.nan_to_num(image)))
    factor = math.ceil(_LEAST / min(picture.size))
    if factor > 1:
        size = picture.width * factor, picture.height * factor
        picture = picture.resize(size, Image.Resampling.NEAREST)
    picture.thumbnail((_MOST, _MOST), Image.Resampling.LANCZOS)
    return ImageOps.expand(picture, border=1, fill=_FRAME)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
    """One line of text at its left middle; too long a text loses its front, as names differ in
    their ends."""
    font = ImageFont.load_default(size=_TEXT)
    short = text
    while draw.textlength(short, font) > width and len(text) > 1:
        text = text[1:]
        short = f"...{text}"
    draw.text(place, short, _INK, font, anchor="lm")


def _tiles(sample: dict[str, Any]) -> dict[str, Image.Image]:
    """The tiles of a sample by their captions."""
    tiles = {"degraded": _tile(sample["lq"])}
    if "gt" in sample:
        tiles["clean"] = _tile(sample["gt"])
    if "mask" in sample:
        tiles["mask"] = _tile(sample["mask"])
    if input_psnr(sample) is not None:
        picture, gain = difference(sample["lq"], sample["gt"])
        tiles[f"difference x{gain}"] = _tile(picture)
    return tiles


def _title(sample: dict[str, Any], tasks: Sequence[str]) -> str:
    """Name, task and PSNR."""
    parts = [str(sample["name"])]
    if "degradation" in sample and tasks:
        parts.append(tasks[sample["degradation"]])
    quality = input_psnr(sample)
    if quality is not None:
        parts.append("unchanged" if quality == math.inf else f"{quality:.1f} dB")
    return "   ".join(parts)


def _strip(sample: dict[str, Any], tasks: Sequence[str]) -> Image.Image:
    """One sample: its title above its tiles and their captions."""
    tiles = _tiles(sample)
    width = sum(tile.width + _GAP for tile in tiles.values())
    height = 2 * _LINE + max(tile.height for tile in tiles.values()) + 2 * _GAP
    strip = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(strip)
    _write(draw, (0, _LINE // 2), _title(sample, tasks), width)
    left = 0
    for caption, tile in tiles.items():
        strip.paste(tile, (left, _LINE))
        _write(draw, (left, _LINE + tile.height + _LINE // 2), caption, tile.width)
        left += tile.width + _GAP
    return strip


def _section(drawn: Drawn) -> Image.Image:
    """The strips of one set in columns."""
    strips = [_strip(sample, drawn.tasks) for sample in drawn.samples]
    width = max(strip.width for strip in strips) + 2 * _GAP
    columns = min(len(strips), max(1, _WIDTH // width))
    rows = [strips[i : i + columns] for i in range(0, len(strips), columns)]
    heights = [max(strip.height for strip in row) for row in rows]
    section = Image.new("RGB", (columns * width, sum(heights)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for i, strip in enumerate(row):
            section.paste(strip, (_GAP + i * width, top))
        top += height
    return section


def draw_sheet(sets: Sequence[Drawn]) -> Image.Image:
    """All samples of all sets on one RGB picture, each set below a heading."""
    sections = [_section(drawn) for drawn in sets]
    heading = _LINE + _GAP
    size = max(s.width for s in sections), sum(heading + s.height for s in sections)
    sheet = Image.new("RGB", size, "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for drawn, section in zip(sets, sections, strict=True):
        draw.rectangle((0, top, sheet.width, top + _LINE), fill=_BAR)
        text = f"{drawn.role}: the first {len(drawn.samples)} of {drawn.length} samples"
        _write(draw, (_GAP, top + _LINE // 2), text, sheet.width - _GAP)
        sheet.paste(section, (0, top + heading))
        top += heading + section.height
    return sheet
