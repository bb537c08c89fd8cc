"""The sRGB curve (IEC 61966-2-1) as it is written in the standard."""

from __future__ import annotations

import torch
from torch import Tensor


def to_linear(values: Tensor) -> Tensor:
    """sRGB values in [0, 1] as linear light in [0, 1]."""
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Tensor) -> Tensor:
    """Linear light, at least 0, as sRGB values."""
    curve = 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, 12.92 * light, curve)
