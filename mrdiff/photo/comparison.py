"""Pictures side by side, and before and after in a notebook."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mrdiff.photo import composite, encode_photo, from_pil

__all__ = ["Comparison", "label_strip", "side_by_side"]

_GAP = 8  # white pixels between two panels


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


class Comparison:
    """A photo before and after, shown side by side where it is the last line of a notebook's cell.

    Args:
        before: the degraded photo.
        after: the restored one, of its kind.
    """

    def __init__(self, before: Image.Image, after: Image.Image) -> None:
        self.before = before
        self.after = after

    def picture(self) -> Tensor:
        """Both with their names above them, RGB ``[3, H, W]`` in [0, 1]; alpha is laid on white."""
        images = [composite(from_pil(image)) for image in (self.before, self.after)]
        return side_by_side(images, ["degraded", "restored"])

    def _repr_png_(self) -> bytes:
        return encode_photo(self.picture(), "PNG")
