"""What lens, sensor and software do to a picture on its way: blur, ringing, fewer pixels.

These are the parts that the two-stage recipe of Wang et al., "Real-ESRGAN: Training Real-World
Blind Super-Resolution with Pure Synthetic Data" (ICCVW 2021), needs beside noise and JPEG: Gaussian
blur of two axes and the ideal low-pass filter, whose ringing is that of sharpening and of
compression (Sec. 3), and random resizing. Theirs enlarges small photographs; here a picture comes
back to the size it had.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.degradations.base import Degradation, Spoilt, check_range, to_8_bit
from datamodules.degradations.motion_blur import convolve
from datamodules.randomness import integer, uniform

_SMALLEST = 8  # pixels of a side that other degradations can work on
_DOWN = ("area", "bilinear", "bicubic")
_UP = ("bilinear", "bicubic")


def _offsets(radius: int) -> tuple[Tensor, Tensor]:
    """y and x of the pixels of a kernel of this radius, ``[K, 1]`` and ``[1, K]`` in float64."""
    line = torch.arange(-radius, radius + 1, dtype=torch.float64)
    return line[:, None], line[None]


def gaussian_kernel(sigma: tuple[float, float], angle: float) -> Tensor:
    """A Gaussian of two axes, cut off at four standard deviations.

    Args:
        sigma: standard deviation in pixels along the first and along the second axis.
        angle: of the first axis in degrees, from right to down.

    Returns:
        ``[K, K]`` float64 of sum 1, K odd; a single 1 if both standard deviations are 0.
    """
    y, x = _offsets(math.ceil(4 * max(sigma)))
    turn = math.radians(angle)
    first = x * math.cos(turn) + y * math.sin(turn)
    second = y * math.cos(turn) - x * math.sin(turn)
    # A line thinner than 0.3 pixels would fall between them. A point may: at 0.1 pixels nothing
    # reaches a neighbour (exp(-50)).
    least = min(max(*sigma, 0.1), 0.3)
    one, two = (max(s, least) for s in sigma)
    kernel = torch.exp(-0.5 * ((first / one) ** 2 + (second / two) ** 2))
    return kernel / kernel.sum()


def sinc_kernel(cutoff: float, radius: int) -> Tensor:
    """The circular ideal low-pass filter ``w J1(w r) / (2 pi r)``, cut off at a radius.

    Args:
        cutoff: frequency w beyond which nothing passes, as a share of the highest, pi.
        radius: in pixels.

    Returns:
        ``[K, K]`` float64 of sum 1, K = 2 radius + 1.
    """
    y, x = _offsets(radius)
    w, r = math.pi * cutoff, torch.hypot(y, x)
    kernel = w * torch.special.bessel_j1(w * r) / (2 * math.pi * r.clamp(min=1))
    kernel[radius, radius] = w**2 / (4 * math.pi)  # the limit at r = 0
    return kernel / kernel.sum()


def _filtered(image: Tensor, kernel: Tensor) -> Tensor:
    """``image`` ``[C, H, W]`` convolved with ``kernel`` ``[K, K]``, rounded to 8 bits."""
    return to_8_bit(convolve(image, kernel).to(image.dtype))


class GaussianBlur(Degradation):
    """A lens out of focus, the same in all directions or more in one than across it.

    Args:
        sigma: standard deviation in pixels; (0, 0) leaves the image as it is.
        anisotropic: how often the second axis draws a standard deviation of its own.
        angle: of the first axis in degrees, where the two differ.

    Raises:
        ValueError: a range that does not rise or leaves its bounds.
    """

    def __init__(
        self,
        *,
        sigma: tuple[float, float] = (0.2, 3.0),
        anisotropic: float = 0.5,
        angle: tuple[float, float] = (0.0, 180.0),
    ) -> None:
        check_range("sigma", sigma, 0, 64)
        check_range("anisotropic", (0.0, anisotropic), 0, 1)
        check_range("angle", angle, -180, 180)
        self.sigma = sigma
        self.anisotropic = anisotropic
        self.angle = angle

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """See :meth:`Degradation.degrade`."""
        along, across = uniform(*self.sigma, generator), uniform(*self.sigma, generator)
        angle = uniform(*self.angle, generator)
        if uniform(0, 1, generator) >= self.anisotropic:
            across = along
        return _filtered(image, gaussian_kernel((along, across), angle))


class SincBlur(Degradation):
    """Ringing: edges lose their high frequencies all at once and are left with echoes.

    Args:
        cutoff: what is kept, as a share of the highest frequency.
        radius: how far in pixels echoes reach; (0, 0) leaves the image as it is.

    Raises:
        ValueError: a range that does not rise or leaves its bounds.
    """

    def __init__(
        self, *, cutoff: tuple[float, float] = (0.35, 1.0), radius: tuple[int, int] = (3, 10)
    ) -> None:
        check_range("cutoff", cutoff, 0.1, 1)
        check_range("radius", radius, 0, 64)
        self.cutoff = cutoff
        self.radius = radius

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """See :meth:`Degradation.degrade`."""
        cutoff = uniform(*self.cutoff, generator)
        return _filtered(image, sinc_kernel(cutoff, integer(*self.radius, generator)))


def _resized(image: Tensor, size: tuple[int, int], modes: tuple[str, ...], choice: float) -> Tensor:
    """``[C, H, W]`` in another size by one of the interpolations, antialiased, rounded to 8 bits.

    Args:
        image: what is resized.
        size: height and width of the result.
        modes: names of interpolations.
        choice: in [0, 1), which of them.
    """
    if image.shape[-2:] == size:
        return image
    mode = modes[int(choice * len(modes))]
    antialias = mode != "area"  # which averages as it is
    return to_8_bit(F.interpolate(image[None], size, mode=mode, antialias=antialias)[0])


def _resized_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """``mask`` ``[1, H, W]`` in another size: 1 where no hole can have reached.

    A bicubic filter reaches two pixels, of the coarser one of the two pictures.
    """
    if mask.shape[-2:] == size:
        return mask
    reach = 2 * max(1, *(math.ceil(a / b) for a, b in zip(mask.shape[-2:], size, strict=True)))
    holes = F.max_pool2d(1 - mask, 2 * reach + 1, stride=1, padding=reach)
    return 1 - F.interpolate(holes[None], size, mode="nearest-exact")[0]


class Resize(Degradation):
    """Pixels that were lost on the way: made smaller, then as large as it was.

    Reduced by area, bilinear or bicubic interpolation and enlarged by one of the latter two, drawn
    for every image. Sides are not made smaller than 8 pixels.

    Args:
        scale: of both sides, drawn uniformly; above 1 the image is enlarged first. (1, 1) leaves
            it as it is.
        inside: what happens at the other size, such as noise, whose grain becomes coarser so, or
            JPEG, whose blocks become larger.

    Raises:
        ValueError: a range that does not rise or leaves its bounds, or tasks inside.
    """

    def __init__(
        self, *, scale: tuple[float, float] = (0.3, 1.0), inside: Degradation | None = None
    ) -> None:
        check_range("scale", scale, 0.01, 4)
        if inside is not None and inside.tasks:
            raise ValueError(f"inside: {type(inside).__name__} names tasks: put it outermost")
        self.scale = scale
        self.inside = inside

    @property
    def cuts_holes(self) -> bool:
        """Whether what happens inside does."""
        return self.inside is not None and self.inside.cuts_holes

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """See :meth:`Degradation.degrade`."""
        return self.spoil(image, generator).lq

    def spoil(self, image: Tensor, generator: torch.Generator) -> Spoilt:
        """See :meth:`Degradation.spoil`; a pixel was kept if all that it is made of was."""
        scale = uniform(*self.scale, generator)
        there, back = uniform(0, 1, generator), uniform(0, 1, generator)
        height, width = image.shape[-2:]
        small = max(round(scale * height), _SMALLEST), max(round(scale * width), _SMALLEST)
        first, last = (_DOWN, _UP) if scale < 1 else (_UP, _DOWN)
        spoilt = Spoilt(_resized(to_8_bit(image), small, first, there))
        if self.inside is not None:
            spoilt = self.inside.spoil(spoilt.lq, generator)
        lq, mask = _resized(spoilt.lq, (height, width), last, back), spoilt.mask
        return Spoilt(lq, None if mask is None else _resized_mask(mask, (height, width)))
