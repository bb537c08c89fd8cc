"""Smooth random fields that haze and shadow vary by."""

from __future__ import annotations

import math

import torch
from torch import Tensor

PHOTO_SIDE = 400
"""Pixels: a picture whose side is shorter is taken for a piece cut out of a photo so large."""


def smooth_field(
    height: int, width: int, *, span: float, generator: torch.Generator, waves: int = 8
) -> Tensor:
    """A random field of mean 0 and standard deviation 1 that changes over about ``span`` pixels.

    float32 ``[height, width]``, a sum of plane waves: a small picture sees a piece of the landscape
    that a large one sees whole, nearly constant when it is much smaller than ``span``.
    """
    chance = torch.rand(3, waves, generator=generator)
    frequency = (0.4 + 1.6 * chance[0]) / span
    direction, phase = 2 * math.pi * chance[1], 2 * math.pi * chance[2]
    amplitude = 1 / frequency  # a broad wave is a high one, as in landscapes
    amplitude = amplitude * (2 / amplitude.square().sum()).sqrt()
    y = 2 * math.pi * torch.arange(height)[:, None] * (frequency * direction.sin()) + phase
    x = 2 * math.pi * torch.arange(width)[:, None] * (frequency * direction.cos())
    # cos(y + x) taken apart: one product of small matrices for all waves.
    return (amplitude * y.cos()) @ x.cos().T - (amplitude * y.sin()) @ x.sin().T
