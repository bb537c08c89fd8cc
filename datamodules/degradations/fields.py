"""Smooth random fields that haze and shadow vary by."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

PHOTO_SIDE = 400
"""Pixels: a picture whose side is shorter is taken for a piece cut out of a photo so large."""


def draw_waves(span: float, generator: torch.Generator, waves: int = 8) -> Tensor:
    """Plane waves of random direction whose sum changes over about ``span`` pixels.

    float32 ``[1, 4, waves]``, to be packed: the change of phase from one row and from one column to
    the next, the phase at the first pixel, and the amplitude.
    """
    chance = torch.rand(3, waves, generator=generator).numpy()
    frequency = (0.4 + 1.6 * chance[0]) / span
    direction, phase = 2 * math.pi * chance[1:]
    amplitude = 1 / frequency  # a broad wave is a high one, as in landscapes
    amplitude *= np.sqrt(2 / np.square(amplitude).sum())
    down, right = np.sin(direction) * frequency, np.cos(direction) * frequency
    table = np.stack([2 * math.pi * down, 2 * math.pi * right, phase, amplitude])
    return torch.from_numpy(table[None])


def smooth_fields(waves: Tensor, height: int, width: int) -> Tensor:
    """Random fields of mean 0 and standard deviation 1, sums of ``waves`` ``[B, 4, waves]``.

    float32 ``[B, height, width]``: a small picture sees a piece of the landscape that a large one
    sees whole, nearly constant when it is much smaller than the waves.
    """
    down, right, phase, amplitude = waves[:, :, None].unbind(1)
    y = torch.arange(height, device=waves.device)[:, None] * down + phase
    x = torch.arange(width, device=waves.device)[:, None] * right
    # cos(y + x) taken apart: one product of small matrices for all waves.
    rows = torch.cat([amplitude * y.cos(), -amplitude * y.sin()], dim=2)
    return rows @ torch.cat([x.cos(), x.sin()], dim=2).mT
