"""Motion blur: the path of a shaking hand during the exposure.

As in Boracchi and Foi, "Modeling the Performance of Image Restoration From Motion Blur" (IEEE TIP
2012) and DeblurGAN (Kupyn et al., CVPR 2018), a point moves on with inertia, is pushed at random
and now and then jerked; the time it spends at a place is the point spread function (PSF). Here the
velocity is an Ornstein-Uhlenbeck process, so that inertia is a time. Light adds up before the
camera's curve (a gamma of 2.2 in Nah et al., "Deep Multi-Scale Convolutional Neural Network for
Dynamic Scene Deblurring", CVPR 2017) and saturates after it did, which draws the streaks of lamps.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.degradations.base import Degradation, parameter, to_8_bit
from datamodules.degradations.convolution import convolve
from datamodules.randomness import log_uniform, uniform

_STEPS = 128  # of the walk
_FINER = 8  # points of the PSF a step


def _walk(inertia: float, jerks: float, generator: torch.Generator) -> Tensor:
    """A path at ``_STEPS`` equal times, ``[_STEPS, 2]`` of no particular size or place."""
    keep = math.exp(-1 / (_STEPS * inertia))
    push = math.sqrt((1 - keep**2) / 2)
    pushes = torch.randn(_STEPS, 2, generator=generator).tolist()
    chances = torch.rand(_STEPS, 2, generator=generator).tolist()
    velocity = cmath.rect(1.0, uniform(0, 2 * math.pi, generator))
    place, path = 0j, []
    for (x, y), (chance, turn) in zip(pushes, chances, strict=True):
        velocity = keep * velocity + push * complex(x, y)
        if chance * _STEPS < jerks:
            velocity *= cmath.rect(1.0, math.pi * (0.5 + turn))  # backwards, give or take
        place += velocity
        path.append((place.imag, place.real))
    return torch.tensor(path, dtype=torch.float64)


def draw_psf(points: Tensor) -> Tensor:
    """The share of time that ``points`` ``[N, 2]`` (y, x in pixels) spend at each pixel.

    Every point is shared out to the four pixels around it (bilinear), so that the PSF, ``[K, K]``
    float64 of sum 1, K odd, has its centroid exactly in the middle.
    """
    points = points.double() - points.double().mean(0)
    reach = math.floor(float(points.abs().max())) + 1
    size = 2 * reach + 1
    corner = points.floor()
    y, x = (points - corner).unbind(1)
    first = ((corner[:, 0] + reach) * size + corner[:, 1] + reach).long()
    index = torch.cat([first, first + 1, first + size, first + size + 1])
    share = torch.cat([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x]) / len(points)
    return torch.bincount(index, share, size * size).reshape(size, size)


@dataclass(frozen=True, kw_only=True, eq=False)
class MotionBlur(Degradation):
    """A photograph that the camera shook, the same all over the picture.

    Args:
        extent: longer side in pixels of the box around the path; (0, 0) leaves the image as it is.
        inertia: the time over which a velocity is forgotten, as a share of the exposure, drawn
            uniformly in its logarithm. From 10 on the path is nearly a straight line.
        jerks: mean number of sudden turns in an exposure.
        gamma: light is the value to this power; (1, 1) blurs the values themselves.
        highlights: how many times brighter than white the light behind a saturated 255 was.
    """

    extent: tuple[float, float] = parameter((3.0, 25.0), within=(0, 512))
    inertia: tuple[float, float] = parameter((0.05, 2.0), within=(1e-3, 1e3))
    jerks: tuple[float, float] = parameter((0.0, 3.0), within=(0, _STEPS))
    gamma: tuple[float, float] = parameter((1.0, 2.2), within=(0.5, 4))
    highlights: tuple[float, float] = parameter((1.0, 2.0), within=(1, 64))

    @property
    def reach(self) -> int:
        return math.ceil(0.6 * self.extent[1])  # half of it, more for one that is not symmetric

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        gamma, white = uniform(*self.gamma, generator), uniform(*self.highlights, generator)
        light = torch.where(image < 1, image**gamma, white)
        # In float64: the gamma magnifies errors in black.
        light = convolve(light.double(), self.psf(generator)).clamp(0, 1)
        return to_8_bit((light ** (1 / gamma)).to(image.dtype))

    def psf(self, generator: torch.Generator) -> Tensor:
        """One PSF, as of :func:`draw_psf`."""
        inertia = log_uniform(*self.inertia, generator)
        path = _walk(inertia, uniform(*self.jerks, generator), generator)
        side = float((path.amax(0) - path.amin(0)).max())
        path = path * (uniform(*self.extent, generator) / side)
        share = torch.arange(_FINER, dtype=path.dtype)[:, None, None] / _FINER
        return draw_psf(torch.lerp(path[:-1], path[1:], share).reshape(-1, 2))
