"""What a degradation is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor


class Spoilt(NamedTuple):
    """A degraded image ``[C, H, W]`` and, where something is missing, its mask ``[1, H, W]``.

    The mask is of the image's dtype, 1 where the image was kept and 0 in holes. ``task`` is the
    number of the degradation where several are told apart.
    """

    lq: Tensor
    mask: Tensor | None = None
    task: int | None = None


class Degradation(ABC):
    """A physical model of how a photograph is spoilt.

    A subclass takes its parameters as keyword-only ranges and draws from ``generator`` alone, so
    the same generator state gives the same picture in any worker, process or run.
    """

    @abstractmethod
    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Spoil one image.

        Args:
            image: float ``[C, H, W]`` in [0, 1], C = 1 or 3, on the CPU; it is not changed.
            generator: CPU generator, the only source of randomness.

        Returns:
            A new tensor of the same shape and dtype in [0, 1], rounded to 8 bits as a file is.
        """

    def spoil(self, image: Tensor, generator: torch.Generator) -> Spoilt:
        """The same picture as :meth:`degrade`, with the mask of what is missing, if anything is.

        A degradation that cuts holes overrides this, and lets ``degrade`` return its ``lq``.
        """
        return Spoilt(self.degrade(image, generator))

    @property
    def reach(self) -> int:
        """How many pixels beyond a patch decide what becomes of it; 0 for most.

        Training patches are cut so much larger, degraded, and cut again.
        """
        return 0

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the degradations that are told apart, by their numbers; none for most."""
        return ()

    @property
    def cuts_holes(self) -> bool:
        """Whether :meth:`spoil` gives masks: always or never, so that samples can be batched."""
        return type(self).spoil is not Degradation.spoil


def to_8_bit(image: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to multiples of 1/255."""
    return image.clamp(0.0, 1.0).mul(255.0).round().div(255.0)


def check_range(name: str, bounds: tuple[float, float], low: float, high: float) -> None:
    """Raise ``ValueError`` unless ``low <= bounds[0] <= bounds[1] <= high``."""
    first, last = bounds
    if not low <= first <= last <= high:
        raise ValueError(f"{name} must rise within [{low:g}, {high:g}], got ({first:g}, {last:g})")
