"""Inpainting: parts of the picture are missing and painted over.

Strokes drawn as random walks follow Yu et al., "Free-Form Image Inpainting with Gated Convolution"
(ICCV 2019); thin and half masks are among those of Lugmayr et al., "RePaint" (CVPR 2022), after
Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier Convolutions" (WACV 2022). The
size of the strokes is our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.degradations import holes
from datamodules.degradations.base import BatchDegradation, Degraded, parameter, to_8_bit
from datamodules.degradations.packing import Draws, Shape
from datamodules.errors import DataError
from datamodules.randomness import new_seed, uniform
from mrdiff.photo import PhotoError, list_images


@dataclass(frozen=True, kw_only=True, eq=False)
class Inpainting(BatchDegradation):
    """Holes in the picture, filled with one value.

    A picture gets one kind of hole. ``share=(0, 0)`` with ``half=0`` leaves it as it is.

    Args:
        thin, brush, box, half: weights of the kinds: straight strokes of 7 to 17 pixels, winding
            strokes of a width that goes with the picture, rectangles, and one half of the picture.
        share: how much of the picture is missing (a half aside).
        fill: value of the holes, in image units; 1 is white, as in the benchmark.
        folder: images used instead of the kinds, dark in holes, each turned, flipped and cut to
            size. One without images is a :class:`DataError` when it is first used.
    """

    thin: float = parameter(0.55, within=(0, 1e6))
    brush: float = parameter(0.2, within=(0, 1e6))
    box: float = parameter(0.15, within=(0, 1e6))
    half: float = parameter(0.1, within=(0, 1e6))
    share: tuple[float, float] = parameter((0.03, 0.5), within=(0, 0.9))
    fill: float = parameter(1.0, within=(0, 1))
    folder: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.thin + self.brush + self.box + self.half == 0:
            raise ValueError("thin, brush, box and half are all 0: no kind of hole is left")

    @property
    def cuts_holes(self) -> bool:
        return True

    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        seed, share = new_seed(generator), uniform(*self.share, generator)
        holes = self._holes(*shape[1:], share, np.random.default_rng(seed))
        return {"holes": torch.from_numpy(holes.copy())[None]}

    def apply(self, images: Tensor, draws: Draws) -> Degraded:
        mask = ~draws["holes"][:, None]
        return Degraded(to_8_bit(torch.where(mask, images, self.fill)), mask.to(images.dtype))

    @cached_property
    def _files(self) -> list[Path]:
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
