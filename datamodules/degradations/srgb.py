"""The sRGB curve (IEC 61966-2-1): screen values as linear light, and back.

Both halves of the curve are held at the knee where the other begins, and added: a choice a pixel
would be slow. That leaves out the step of 3e-9 that the standard has there.
"""

from __future__ import annotations

from torch import Tensor

_KNEE = 0.04045  # in screen values; below it the curve is a straight line
_SLOPE = 12.92


def to_linear(images: Tensor) -> Tensor:
    """sRGB values of any shape, in [0, 1], as linear light in [0, 1]."""
    curve = images.clamp(min=_KNEE).add_(0.055).mul_(1 / 1.055).pow_(2.4)
    return images.clamp(max=_KNEE).sub_(_KNEE).mul_(1 / _SLOPE).add_(curve)


def to_srgb(light: Tensor) -> Tensor:
    """Linear light of any shape, at least 0, as sRGB values: above 1 where it is above 1."""
    knee = _KNEE / _SLOPE
    curve = light.clamp(min=knee).pow_(1 / 2.4).mul_(1.055).sub_(0.055)
    return light.clamp(max=knee).sub_(knee).mul_(_SLOPE).add_(curve)
