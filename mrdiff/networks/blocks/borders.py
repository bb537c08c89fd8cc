"""Borders that make height and width multiples of what a network halves, and their removal.

A program that is exported for images of any size may ask of none of them whether it needs a border:
there pixels are taken by their places.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["cropped", "padded"]


def padded(
    image: Tensor, multiple: int, mode: Literal["constant", "replicate", "reflect"]
) -> Tensor:
    """``[B, C, H, W]`` with the least borders, at the right and below, that give multiples.

    They have zeros, the last pixels or a reflection, which becomes the last pixels of an image that
    is no larger than its border; a program never has that.
    """
    height, width = image.shape[-2:]
    # Not -height % multiple: of this form an exporter knows that the sum is a multiple.
    rows, columns = ((side + multiple - 1) // multiple * multiple for side in (height, width))
    pad = 0, columns - width, 0, rows - height
    if torch.compiler.is_exporting():
        if mode != "reflect":
            return F.pad(image, pad, mode=mode)
        return _taken(image, *(_reflected(rows, height, image), _reflected(columns, width, image)))
    if mode == "reflect" and not (pad[1] < width and pad[3] < height):
        mode = "replicate"
    return F.pad(image, pad, mode=mode) if any(pad) else image


def cropped(image: Tensor, like: Tensor) -> Tensor:
    """``[B, C, H, W]`` without the borders that :func:`padded` has added to ``like``."""
    height, width = like.shape[-2:]
    if not torch.compiler.is_exporting():
        return image[..., :height, :width]
    rows, columns = (torch.arange(side, device=image.device) for side in (height, width))
    return _taken(image, rows, columns)


def _reflected(count: int, side: int, image: Tensor) -> Tensor:
    """The places of ``count`` pixels, those beyond ``side`` going back from its last one."""
    last = side - 1
    return last - (torch.arange(count, device=image.device) - last).abs()


def _taken(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return image.index_select(-2, rows).index_select(-1, columns)
