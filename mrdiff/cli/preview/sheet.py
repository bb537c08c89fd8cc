"""The sheet of ``mrdiff preview``: pairs in strips, degraded | clean | mask | difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mrdiff.cli.preview.report import Drawn, input_psnr
from mrdiff.photo.sheets import above, beside, fitted, label

__all__ = ["difference", "draw_sheet"]

_LEAST, _MOST = 160, 320  # px: short side of small tiles, long side of large ones
_GAP, _LINE = 6, 22
_WIDTH = 1640  # px, unless one strip is wider
_FRAME, _BAR = 200 / 255, 225 / 255  # greys
_OTHERS = {"clean": "gt", "mask": "mask"}
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


def _tiles(sample: dict[str, Any]) -> list[Tensor]:
    """The pictures of a sample above their captions."""
    pictures = {"degraded": sample["lq"]}
    pictures |= {name: sample[key] for name, key in _OTHERS.items() if key in sample}
    picture, gain = difference(sample["lq"], sample["gt"])
    pictures[f"difference x{gain}"] = picture
    tiles = []
    for caption, picture in pictures.items():
        tile = fitted(torch.nan_to_num(picture), least=_LEAST, most=_MOST)
        tile = functional.pad(tile, (1, 1, 1, 1), value=_FRAME)
        tiles.append(above([tile, label(caption, tile.shape[-1], _LINE, place="left")]))
    return tiles


def _title(sample: dict[str, Any], tasks: Sequence[str]) -> str:
    """Name, task and PSNR."""
    parts = [str(sample["name"])]
    if "degradation" in sample and tasks:
        parts.append(tasks[sample["degradation"]])
    quality = input_psnr(sample)
    parts.append("unchanged" if quality == math.inf else f"{quality:.1f} dB")
    return "   ".join(parts)


def _strip(sample: dict[str, Any], tasks: Sequence[str]) -> Tensor:
    """One sample: its title above its tiles."""
    tiles = beside(_tiles(sample), gap=_GAP)
    title = label(_title(sample, tasks), tiles.shape[-1], _LINE, place="left")
    return functional.pad(above([title, tiles]), (_GAP, 2 * _GAP, 0, 2 * _GAP), value=1.0)


def _section(drawn: Drawn) -> Tensor:
    """The strips of one set in columns of one width."""
    strips = [_strip(sample, drawn.tasks) for sample in drawn.samples]
    width = max(strip.shape[-1] for strip in strips)
    columns = min(len(strips), max(1, _WIDTH // width))
    cells = [functional.pad(s, (0, width - s.shape[-1], 0, 0), value=1.0) for s in strips]
    return above([beside(cells[i : i + columns]) for i in range(0, len(cells), columns)])


def draw_sheet(sets: Sequence[Drawn]) -> Tensor:
    """All samples of all sets, each set below a heading, RGB ``[3, H, W]`` in [0, 1]."""
    sections = [_section(drawn) for drawn in sets]
    width = max(section.shape[-1] for section in sections)
    parts = []
    for drawn, section in zip(sets, sections, strict=True):
        text = f"{drawn.role}: the first {len(drawn.samples)} of {drawn.length} samples"
        bar = label(text, width - _GAP, _LINE, place="left", background="#e1e1e1")
        bar = functional.pad(bar, (_GAP, 0, 0, 0), value=_BAR)
        parts.append(above([bar, section], gap=_GAP))
    return above(parts)
