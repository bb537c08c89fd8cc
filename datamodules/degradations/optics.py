"""What lens, sensor and software do to a picture on its way: blur, ringing, fewer pixels.

The parts that the two-stage recipe of Wang et al., "Real-ESRGAN" (ICCVW 2021, Sec. 3), needs beside
noise and JPEG: Gaussian blur of two axes, the ideal low-pass filter, whose ringing is that of
sharpening and of compression, and random resizing; here a picture comes back to the size it had.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import j1
from torch import Tensor
from torch.nn import functional as F

from datamodules.degradations.base import (
    BatchDegradation,
    Degradation,
    Degraded,
    applied,
    parameter,
    to_8_bit,
)
from datamodules.degradations.convolution import convolve
from datamodules.degradations.grouped import GroupedDegradation
from datamodules.degradations.packing import Draws, Shape
from datamodules.randomness import integer, uniform

_SMALLEST = 8  # pixels of a side that other degradations can work on
_DOWN = ("area", "bilinear", "bicubic")
_UP = ("bilinear", "bicubic")


def _offsets(radius: int) -> tuple[np.ndarray, np.ndarray]:
    """y and x of the pixels of a kernel of this radius, ``[K, 1]`` and ``[1, K]`` in float64."""
    line = np.arange(-radius, radius + 1.0)
    return line[:, None], line[None]


def gaussian_kernel(sigma: tuple[float, float], angle: float) -> Tensor:
    """A Gaussian of two axes, the first at ``angle`` degrees from right to down.

    ``[K, K]`` float64 of sum 1, K odd: cut off at four standard deviations, a single 1 for (0, 0).
    """
    y, x = _offsets(math.ceil(4 * max(sigma)))
    turn = math.radians(angle)
    first = x * math.cos(turn) + y * math.sin(turn)
    second = y * math.cos(turn) - x * math.sin(turn)
    # A line thinner than 0.3 pixels would fall between them. A point may: at 0.1 pixels nothing
    # reaches a neighbour (exp(-50)).
    least = min(max(*sigma, 0.1), 0.3)
    one, two = (max(s, least) for s in sigma)
    kernel = np.exp(-0.5 * ((first / one) ** 2 + (second / two) ** 2))
    return torch.from_numpy(kernel / kernel.sum())


def sinc_kernel(cutoff: float, radius: int) -> Tensor:
    """The circular ideal low-pass filter ``w J1(w r) / (2 pi r)``, ``w = pi cutoff``.

    ``[K, K]`` float64 of sum 1, K = 2 radius + 1.
    """
    y, x = _offsets(radius)
    w, r = math.pi * cutoff, np.hypot(y, x)
    kernel = w * j1(w * r) / (2 * math.pi * r.clip(min=1))
    kernel[radius, radius] = w**2 / (4 * math.pi)  # the limit at r = 0
    return torch.from_numpy(kernel / kernel.sum())


class _Filter(BatchDegradation):
    """Convolution with a kernel ``[K, K]`` of sum 1 that a subclass draws."""

    @abstractmethod
    def kernel(self, generator: torch.Generator) -> Tensor: ...

    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        return {"kernel": self.kernel(generator).float()[None]}

    def apply(self, images: Tensor, draws: Draws) -> Degraded:
        return Degraded(to_8_bit(convolve(images, draws["kernel"])))


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianBlur(_Filter):
    """A lens out of focus, the same in all directions or more in one than across it.

    Args:
        sigma: standard deviation in pixels; (0, 0) leaves the image as it is.
        anisotropic: how often the second axis draws a standard deviation of its own.
        angle: of the first axis in degrees, where the two differ.
    """

    sigma: tuple[float, float] = parameter((0.2, 3.0), within=(0, 64))
    anisotropic: float = parameter(0.5, within=(0, 1))
    angle: tuple[float, float] = parameter((0.0, 180.0), within=(-180, 180))

    def kernel(self, generator: torch.Generator) -> Tensor:
        along, across = uniform(*self.sigma, generator), uniform(*self.sigma, generator)
        angle = uniform(*self.angle, generator)
        if uniform(0, 1, generator) >= self.anisotropic:
            across = along
        return gaussian_kernel((along, across), angle)


@dataclass(frozen=True, kw_only=True, eq=False)
class SincBlur(_Filter):
    """Ringing: edges lose their high frequencies all at once and are left with echoes.

    Args:
        cutoff: what passes, as a share of the highest frequency.
        radius: how far in pixels echoes reach; (0, 0) leaves the image as it is.
    """

    cutoff: tuple[float, float] = parameter((0.35, 1.0), within=(0.1, 1))
    radius: tuple[int, int] = parameter((3, 10), within=(0, 64))

    def kernel(self, generator: torch.Generator) -> Tensor:
        cutoff = uniform(*self.cutoff, generator)
        return sinc_kernel(cutoff, integer(*self.radius, generator))


def _resized(images: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """``[B, C, H, W]`` in another size by an interpolation."""
    if images.shape[-2:] == tuple(size):
        return images
    antialias = mode != "area"  # which averages as it is
    return to_8_bit(F.interpolate(images, tuple(size), mode=mode, antialias=antialias))


def _resized_masks(masks: Tensor, size: Sequence[int]) -> Tensor:
    """``masks`` ``[B, 1, H, W]`` in another size: 1 where no hole can have reached."""
    if masks.shape[-2:] == tuple(size):
        return masks
    # A bicubic filter reaches two pixels, of the coarser one of the two pictures.
    reach = 2 * max(1, *(math.ceil(a / b) for a, b in zip(masks.shape[-2:], size, strict=True)))
    holes = F.max_pool2d(1 - masks, 2 * reach + 1, stride=1, padding=reach)
    return 1 - F.interpolate(holes, tuple(size), mode="nearest-exact")


@dataclass(frozen=True, kw_only=True, eq=False)
class Resize(GroupedDegradation):
    """Pixels that were lost on the way: made smaller, then as large as it was.

    Reduced by area, bilinear or bicubic interpolation and enlarged by one of the latter two, drawn
    for every image. Sides are not made smaller than 8 pixels.

    Args:
        scale: of both sides; above 1 the image is enlarged first. (1, 1) leaves it as it is.
        inside: what happens at the other size, such as noise or JPEG.
    """

    scale: tuple[float, float] = parameter((0.3, 1.0), within=(0.01, 4))
    inside: Degradation | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inside is not None and self.inside.tasks:
            raise ValueError(f"inside: {type(self.inside).__name__} names tasks: put it outermost")

    @property
    def cuts_holes(self) -> bool:
        return self.inside is not None and self.inside.cuts_holes

    @property
    def on_device(self) -> bool:
        return self.inside is None or self.inside.on_device

    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        scale = uniform(*self.scale, generator)
        there, back = uniform(0, 1, generator), uniform(0, 1, generator)
        channels, height, width = shape
        size = max(round(scale * height), _SMALLEST), max(round(scale * width), _SMALLEST)
        first, last = (_DOWN, _UP) if scale < 1 else (_UP, _DOWN)
        modes = first[int(there * len(first))], last[int(back * len(last))]
        inside = None if self.inside is None else self.inside.draw(generator, (channels, *size))
        return {"size": size, "modes": modes, "inside": inside}

    def kind(self, draws: Draws) -> tuple[tuple[int, int], tuple[str, str]]:
        return draws["size"], draws["modes"]

    def pack_alike(self, draws: Sequence[Draws]) -> Draws:
        return {} if self.inside is None else self.inside.pack([each["inside"] for each in draws])

    def apply_alike(self, images: Tensor, kind: Any, draws: Draws) -> Degraded:
        """The pictures and their masks: a pixel was kept if all that it is made of was."""
        small, (there, back) = kind
        degraded = Degraded(_resized(to_8_bit(images), small, there))
        if self.inside is not None:
            degraded = applied(self.inside, degraded.lq, draws)
        size, mask = images.shape[-2:], degraded.mask
        lq = _resized(degraded.lq, size, back)
        return Degraded(lq, None if mask is None else _resized_masks(mask, size))
