"""JPEG: the blocks, the ringing and the washed-out colour of the real codec.

The codec is Wallace, "The JPEG Still Picture Compression Standard" (Communications of the ACM,
1991), in the library that Pillow brings. A training patch is a crop of a larger photograph, so
its grid of blocks begins anywhere, which ``offset`` imitates.
"""

from __future__ import annotations

import io

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from datamodules.degradations.base import Degradation, check_range, to_8_bit
from datamodules.randomness import integer, uniform
from mrdiff.photo import from_pil, to_pil

_SUBSAMPLING = ("4:4:4", "4:2:2", "4:2:0")


class JPEG(Degradation):
    """A round trip through a JPEG file; a grey image through a grey one.

    No quality is free of loss: at 100 with ``chroma`` (1, 0, 0) pixels still move by a few
    levels, because the transform and the colours are rounded.

    Args:
        quality: of the Independent JPEG Group's tables, 1 to 100, drawn uniformly in its
            logarithm: what a step of quality changes is seen at the low end.
        chroma: how often colour is kept whole (4:4:4), halved across (4:2:2) and halved both
            across and down (4:2:0), relative to one another.
        offset: rows and columns of a first block that lie outside the image, one draw each. (0, 0)
            is a whole photograph; 15 reaches every phase of the 16-pixel grid of 4:2:0.

    Raises:
        ValueError: a range that does not rise or leaves its bounds, or weights that are negative
            or all 0.
    """

    def __init__(
        self,
        *,
        quality: tuple[int, int] = (5, 40),
        chroma: tuple[float, float, float] = (0.2, 0.1, 0.7),
        offset: tuple[int, int] = (0, 15),
    ) -> None:
        check_range("quality", quality, 1, 100)
        check_range("offset", offset, 0, 15)
        if not (min(chroma) >= 0 and 0 < sum(chroma) < float("inf")):
            raise ValueError(f"chroma must be at least 0 and not all 0, got {tuple(chroma)}")
        self.quality = quality
        self.chroma = torch.tensor(chroma, dtype=torch.float32)
        self.offset = offset

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """See :meth:`Degradation.degrade`."""
        low, high = self.quality
        quality = min(high, int(low * ((high + 1) / low) ** uniform(0, 1, generator)))
        chroma = int(torch.multinomial(self.chroma, 1, generator=generator))
        top, left = integer(*self.offset, generator), integer(*self.offset, generator)
        # The edge is repeated, as the codec itself does on the other two sides.
        padded = F.pad(image[None], (left, 0, top, 0), mode="replicate")[0]
        decoded = _round_trip(padded, quality, _SUBSAMPLING[chroma])
        return to_8_bit(decoded[:, top:, left:].to(image.dtype))


def _round_trip(image: Tensor, quality: int, subsampling: str) -> Tensor:
    """``image`` ``[C, H, W]`` as it comes back from a JPEG file, float32."""
    file = io.BytesIO()
    to_pil(image).save(file, format="JPEG", quality=quality, subsampling=subsampling)
    with Image.open(file) as decoded:
        return from_pil(decoded)
