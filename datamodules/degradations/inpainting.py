"""Inpainting: parts of the picture are missing and painted over.

Strokes drawn as free-form random walks follow Yu et al., "Free-Form Image Inpainting with Gated
Convolution" (ICCV 2019); thin and half masks are among those that inpainting by diffusion is
compared on in Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models"
(CVPR 2022), after Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier
Convolutions" (WACV 2022). The size of the strokes is our own.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.degradations import holes
from datamodules.degradations.base import Degradation, Spoilt, check_range, to_8_bit
from datamodules.errors import DataError
from datamodules.randomness import uniform
from mrdiff.photo import PhotoError, list_images


class Inpainting(Degradation):
    """Holes in the picture, filled with one value.

    A picture gets one kind of hole, by the weights of the kinds; ``spoil`` tells where they are.
    ``share=(0, 0)`` with ``half=0`` leaves the image as it is.

    Args:
        thin, brush, box, half: weights of the kinds: straight strokes of 7 to 17 pixels, winding
            strokes of a width that goes with the picture, rectangles, and one half of the picture.
        share: how much of the picture is missing (a half aside).
        fill: value of the holes, in image units; 1 is white, as in the benchmark.
        folder: images used instead of the kinds, dark in holes; each picture takes one at random,
            turned, flipped and cut to size.

    Raises:
        ValueError: a range that does not rise or leaves its bounds, or weights of which none is
            above 0. A folder without images is a :class:`DataError` when it is first used.
    """

    def __init__(
        self,
        *,
        thin: float = 0.55,
        brush: float = 0.2,
        box: float = 0.15,
        half: float = 0.1,
        share: tuple[float, float] = (0.03, 0.5),
        fill: float = 1.0,
        folder: str | None = None,
    ) -> None:
        weights = {"thin": thin, "brush": brush, "box": box, "half": half}
        for name, weight in weights.items():
            check_range(name, (0.0, weight), 0, 1e6)
        if sum(weights.values()) == 0:
            raise ValueError("thin, brush, box and half are all 0: no kind of hole is left")
        check_range("share", share, 0, 0.9)
        check_range("fill", (0.0, fill), 0, 1)
        self.thin = thin
        self.brush = brush
        self.box = box
        self.half = half
        self.share = share
        self.fill = fill
        self.folder = folder

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """See :meth:`Degradation.degrade`."""
        return self.spoil(image, generator).lq

    def spoil(self, image: Tensor, generator: torch.Generator) -> Spoilt:
        """See :meth:`Degradation.spoil`."""
        seed = int(torch.randint(2**62, (), generator=generator))
        share = uniform(*self.share, generator)
        missing = self._holes(image.shape[-2], image.shape[-1], share, np.random.default_rng(seed))
        mask = torch.from_numpy(~missing)[None]
        return Spoilt(to_8_bit(torch.where(mask, image, self.fill)), mask.to(image.dtype))

    @cached_property
    def _files(self) -> list[Path]:
        """The masks of the folder, listed once when the first is needed."""
        try:
            files = list_images(str(self.folder))
        except PhotoError as error:
            raise DataError(f"inpainting masks: {error}") from None
        if not files:
            raise DataError(f"{self.folder}: no images in this folder of inpainting masks")
        return files

    def _holes(self, height: int, width: int, share: float, rng: np.random.Generator) -> np.ndarray:
        """Where the picture is missing, boolean ``[height, width]``."""
        if self.folder is not None:
            path = self._files[int(rng.integers(len(self._files)))]
            return holes.read_holes(path, height, width, rng)
        weights = np.array([self.thin, self.brush, self.box, self.half])
        kind = int(rng.choice(4, p=weights / weights.sum()))
        if kind == 3:
            return holes.half(height, width, rng)
        return (holes.thin, holes.brush, holes.box)[kind](height, width, share, rng)
