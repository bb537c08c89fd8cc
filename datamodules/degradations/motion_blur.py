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
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from datamodules.degradations.base import BatchDegradation, Degraded, parameter, to_8_bit
from datamodules.degradations.convolution import convolve
from datamodules.degradations.packing import Draws, Shape, per_image
from datamodules.randomness import log_uniform, uniform

_STEPS = 128  # of the walk
_FINER = 8  # points of the PSF a step


def _walk(inertia: float, jerks: float, generator: torch.Generator) -> np.ndarray:
    """A path at ``_STEPS`` equal times, ``x + iy`` of no particular size or place."""
    keep = math.exp(-1 / (_STEPS * inertia))
    push = math.sqrt((1 - keep**2) / 2)
    pushes = torch.view_as_complex(torch.randn(_STEPS, 2, generator=generator).double()).numpy()
    chance, turn = torch.rand(_STEPS, 2, generator=generator).double().numpy().T
    first = cmath.rect(1.0, uniform(0, 2 * math.pi, generator))
    angles = np.where(chance * _STEPS < jerks, math.pi * (0.5 + turn), 0.0)  # backwards, about
    # Seen from axes that turn with every jerk, the velocity has none.
    axes = np.exp(1j * np.cumsum(angles))
    seen = push * pushes * np.concatenate([[1.0], axes[:-1].conj()])
    velocity = accumulate(seen.tolist(), lambda v, pushed: keep * v + pushed, initial=first)
    return np.cumsum(axes * np.fromiter(velocity, complex, _STEPS + 1)[1:])


def draw_psf(points: np.ndarray) -> Tensor:
    """The share of time that ``points`` ``[N]`` (``x + iy`` in pixels) spend at each pixel.

    Every point is shared out to the four pixels around it (bilinear), so that the PSF, ``[K, K]``
    float64 of sum 1, K odd, has its centroid exactly in the middle.
    """
    points = points - points.mean()
    x, y = points.real, points.imag
    reach = math.floor(max(abs(x).max(), abs(y).max())) + 1
    size = 2 * reach + 1
    column, row = np.floor(x), np.floor(y)
    x, y = x - column, y - row
    first = ((row + reach) * size + column + reach).astype(int)
    index = np.concatenate([first, first + 1, first + size, first + size + 1])
    share = np.concatenate([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x])
    psf = np.bincount(index, share / len(points), size * size)
    return torch.from_numpy(psf.reshape(size, size))


@dataclass(frozen=True, kw_only=True, eq=False)
class MotionBlur(BatchDegradation):
    """A photograph that the camera shook, the same all over the picture.

    Not shown: blur that differs with depth or with the place (a camera that turned), things that
    move by themselves, and the noise of the sensor, which comes after it.

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

    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        gamma, white = uniform(*self.gamma, generator), uniform(*self.highlights, generator)
        return {"gamma": gamma, "white": white, "psf": self.psf(generator)[None]}

    def apply(self, images: Tensor, draws: Draws) -> Degraded:
        gamma, white = per_image(draws["gamma"]), per_image(draws["white"])
        # Values in [0, 1]: their floor is 1 where they are saturated.
        light = torch.addcmul(images**gamma, images.floor(), white - 1)
        # In float64: the gamma magnifies errors in black.
        light = convolve(light.double(), draws["psf"]).clamp(0, 1).to(images.dtype)
        return Degraded(to_8_bit(light ** (1 / gamma)))

    def psf(self, generator: torch.Generator) -> Tensor:
        """One PSF, as of :func:`draw_psf`."""
        inertia = log_uniform(*self.inertia, generator)
        path = _walk(inertia, uniform(*self.jerks, generator), generator)
        side = max(np.ptp(path.real), np.ptp(path.imag))
        path *= uniform(*self.extent, generator) / side
        share = np.arange(_FINER)[:, None] / _FINER
        return draw_psf((path[:-1] + share * np.diff(path)).ravel())
