"""Labelled pictures in rows and columns, each ``[3, H, W]`` in [0, 1] on white."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from mrdiff.photo import composite, encode_photo, from_pil
from mrdiff.system.text import shown

__all__ = ["GAP", "Comparison", "above", "beside", "fitted", "heat_map", "label", "side_by_side"]

_INK = (32, 32, 32)
GAP = 8  # between two panels


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # slow to import; its font has more letters than Pillow's own

    return ImageFont.truetype(
        Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size
    )


def label(
    text: str,
    width: int,
    height: int,
    *,
    place: Literal["left", "centre"] = "centre",
    background: str = "white",
) -> Tensor:
    """One line of text, ``[3, height, width]``.

    Too long a text gets smaller, then loses its front: paths of one folder differ in their ends.
    """
    text = shown(text)
    image, line = Image.new("RGB", (width, height), background), text
    sizes = range(max(10, int(0.64 * height)), max(9, height // 2 - 1), -1)
    fonts = [_font(size) for size in sizes]
    font = next((one for one in fonts if one.getlength(text) <= width), fonts[-1])
    while text and font.getlength(line) > width:
        text = text[1:]
        line = f"…{text}"
    left, anchor = (width / 2, "mm") if place == "centre" else (0, "lm")
    ImageDraw.Draw(image).text((left, height / 2), line, _INK, font, anchor=anchor)
    return from_pil(image)


def beside(panels: Sequence[Tensor], *, gap: int = 0) -> Tensor:
    """Pictures in a row, aligned at their tops."""
    width = sum(panel.shape[-1] + gap for panel in panels) - gap
    sheet, left = torch.ones(3, max(panel.shape[-2] for panel in panels), width), 0
    for panel in panels:
        sheet[:, : panel.shape[-2], left : left + panel.shape[-1]] = panel
        left += panel.shape[-1] + gap
    return sheet


def above(panels: Sequence[Tensor], *, gap: int = 0) -> Tensor:
    """Pictures in a column, aligned at their left."""
    return beside([panel.mT for panel in panels], gap=gap).mT


def fitted(image: Tensor, *, least: int, most: int) -> Tensor:
    """A picture to look at, from ``[C, H, W]``, C in 1 to 4, its values cut to [0, 1].

    Small ones are enlarged by a whole factor, pixels kept sharp, to a short side of ``least``
    pixels; the long side gets no longer than ``most``. Large ones are shrunk smoothly.
    """
    image = composite(image.float().clamp(0.0, 1.0))
    short, long = sorted(image.shape[-2:])
    factor = min(math.ceil(least / short), most // long)
    if factor > 1:
        return functional.interpolate(image[None], scale_factor=factor, mode="nearest")[0]
    if long <= most:
        return image
    size = [max(1, round(length * most / long)) for length in image.shape[-2:]]
    return functional.interpolate(image[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)


def heat_map(values: Tensor, *, brightest: float) -> Tensor:
    """``[H, W]`` as colours: 0 is black, ``brightest`` and more bright yellow."""
    from matplotlib import colormaps  # slow to import

    colours = colormaps["inferno"]((values / brightest).clamp(0, 1).numpy())
    return rearrange(torch.from_numpy(np.asarray(colours)[..., :3]), "h w c -> c h w").float()


def side_by_side(
    images: Sequence[Tensor], labels: Sequence[str], *, height: int | None = None
) -> Tensor:
    """One picture with a label of this height above each image ``[3, H, W]``."""
    height = height or max(20, max(image.shape[-2] for image in images) // 16)
    labelled = zip(images, labels, strict=True)
    panels = [above([label(text, image.shape[-1], height), image]) for image, text in labelled]
    return beside(panels, gap=GAP)


class Comparison:
    """A photo before and after, side by side where it is the last line of a notebook's cell."""

    def __init__(self, before: Image.Image, after: Image.Image) -> None:
        self.before = before
        self.after = after

    def picture(self) -> Tensor:
        """Both with their names above them; alpha is laid on white."""
        images = [composite(from_pil(image)) for image in (self.before, self.after)]
        return side_by_side(images, ["degraded", "restored"])

    def _repr_png_(self) -> bytes:
        return encode_photo(self.picture(), "PNG")
