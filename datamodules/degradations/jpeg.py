"""JPEG: the blocks, the ringing and the washed-out colour of the real codec.

The codec (Wallace, "The JPEG Still Picture Compression Standard", CACM 1991) is that of Pillow,
which works on the CPU.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from datamodules.degradations.base import (
    BatchDegradation,
    Degraded,
    check_weights,
    parameter,
    to_8_bit,
)
from datamodules.degradations.packing import Draws, Shape
from datamodules.randomness import integer, uniform
from mrdiff.photo import from_pil, to_pil

_SUBSAMPLING = ("4:4:4", "4:2:2", "4:2:0")


@dataclass(frozen=True, kw_only=True, eq=False)
class JPEG(BatchDegradation):
    """A round trip through a JPEG file; a grey image through a grey one. No quality is lossless.

    Args:
        quality: of the Independent JPEG Group's tables, 1 to 100, drawn uniformly in its logarithm.
        chroma: weights of whole colour (4:4:4), halved across (4:2:2) and both ways (4:2:0).
        offset: rows and columns of a first block that lie outside the image, one draw each: the
            grid of a patch begins anywhere. (0, 0) is a whole photograph; 15 reaches every phase
            of the 16-pixel grid of 4:2:0.
    """

    quality: tuple[int, int] = parameter((5, 40), within=(1, 100))
    chroma: tuple[float, float, float] = (0.2, 0.1, 0.7)
    offset: tuple[int, int] = parameter((0, 15), within=(0, 15))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights("chroma", self.chroma)

    @property
    def on_device(self) -> bool:
        return False

    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        low, high = self.quality
        quality = min(high, int(low * ((high + 1) / low) ** uniform(0, 1, generator)))
        chroma = int(torch.multinomial(torch.tensor(self.chroma).float(), 1, generator=generator))
        top, left = integer(*self.offset, generator), integer(*self.offset, generator)
        return {"quality": quality, "chroma": chroma, "top": top, "left": left}

    def pack(self, draws: Sequence[Draws]) -> Draws:
        return {"files": list(draws)}

    def apply(self, images: Tensor, draws: Draws) -> Degraded:
        files = zip(images, draws["files"], strict=True)
        decoded = [_round_trip(image, **file) for image, file in files]
        return Degraded(to_8_bit(torch.stack(decoded).to(images.dtype)))


def _round_trip(image: Tensor, quality: int, chroma: int, top: int, left: int) -> Tensor:
    """``image`` ``[C, H, W]`` as it comes back from a JPEG file, float32."""
    # The edge is repeated, as the codec itself does on the other two sides.
    padded = F.pad(image[None], (left, 0, top, 0), mode="replicate")[0]
    file = io.BytesIO()
    to_pil(padded).save(file, "JPEG", quality=quality, subsampling=_SUBSAMPLING[chroma])
    with Image.open(file) as decoded:
        return from_pil(decoded)[:, top:, left:]
