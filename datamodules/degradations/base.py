"""What a degradation is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


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


def to_8_bit(image: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to multiples of 1/255."""
    return image.clamp(0.0, 1.0).mul(255.0).round().div(255.0)


def check_range(name: str, bounds: tuple[float, float], low: float, high: float) -> None:
    """Raise ``ValueError`` unless ``low <= bounds[0] <= bounds[1] <= high``."""
    first, last = bounds
    if not low <= first <= last <= high:
        raise ValueError(f"{name} must rise within [{low:g}, {high:g}], got ({first:g}, {last:g})")
