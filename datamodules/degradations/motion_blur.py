"""Motion blur: the path of a shaking hand during the exposure.

The model is that of Boracchi and Foi, "Modeling the Performance of Image Restoration From Motion
Blur" (IEEE TIP 2012), which Kupyn et al. took for "DeblurGAN: Blind Motion Deblurring Using
Conditional Adversarial Networks" (CVPR 2018): a point moves on with inertia, is pushed at random
and now and then jerked, and the time it spends at a place is the point spread function (PSF)
there. Here the velocity is an Ornstein-Uhlenbeck process, so that inertia is a time, and a jerk
gives it a new direction. Light adds up in the sensor, before the camera's curve (Nah et al., "Deep
Multi-Scale Convolutional Neural Network for Dynamic Scene Deblurring", CVPR 2017, undo that curve
by a gamma of 2.2), and saturates only after it did, which draws the streaks of lamps.
"""

from __future__ import annotations

import cmath
import math

import torch
from torch import Tensor

from datamodules.degradations.base import Degradation, check_range, to_8_bit
from datamodules.degradations.mirror import mirrored
from datamodules.randomness import uniform

_STEPS = 128  # of the walk
_FINER = 8  # points of the PSF a step


def _walk(inertia: float, jerks: float, generator: torch.Generator) -> Tensor:
    """A path at ``_STEPS`` equal times, ``[_STEPS, 2]`` of no particular size or place.

    Args:
        inertia: the time, as a share of the exposure, over which a velocity is forgotten.
        jerks: mean number of sudden turns.
        generator: the source of randomness.
    """
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
    """The share of time spent at each pixel, centred on the mean of the points.

    Every point is shared out to the four pixels around it (bilinear), which keeps its place
    exactly: the centroid of the PSF is that of the points.

    Args:
        points: ``[N, 2]``, y and x in pixels at equal times.

    Returns:
        ``[K, K]`` float64, K odd, of sum 1 and with its centroid in the middle.
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


def convolve(image: Tensor, psf: Tensor) -> Tensor:
    """``image`` ``[C, H, W]`` convolved with ``psf`` ``[K, K]``, K odd; borders are mirrored.

    Returns:
        ``[C, H, W]`` in float64 whatever the image's dtype, for a gamma magnifies errors in black.
    """
    height, width = image.shape[-2:]
    margin = psf.shape[-1] // 2
    rows = mirrored(-margin, height + margin, height)
    columns = mirrored(-margin, width + margin, width)
    wide = image.double()[:, rows][:, :, columns]
    shape = [-(-length // 16) * 16 for length in wide.shape[-2:]]  # sizes that the FFT likes
    spectrum = torch.fft.rfft2(wide, s=shape) * torch.fft.rfft2(psf.double(), s=shape)
    # The circular wrap stays within the first 2 * margin rows and columns.
    blurred: Tensor = torch.fft.irfft2(spectrum, s=shape)
    inside = slice(2 * margin, 2 * margin + height), slice(2 * margin, 2 * margin + width)
    return blurred[:, inside[0], inside[1]]


class MotionBlur(Degradation):
    """A photograph that the camera shook, the same all over the picture.

    Args:
        extent: longer side in pixels of the box around the path; (0, 0) leaves the image as it is.
        inertia: the time over which a velocity is forgotten, as a share of the exposure, drawn
            uniformly in its logarithm. From 10 on the path is nearly a straight line.
        jerks: mean number of sudden turns in an exposure.
        gamma: light is the value to this power; (1, 1) blurs the values themselves.
        highlights: how many times brighter than white the light behind a saturated 255 was.

    Raises:
        ValueError: a range that does not rise or leaves its bounds.
    """

    def __init__(
        self,
        *,
        extent: tuple[float, float] = (3.0, 25.0),
        inertia: tuple[float, float] = (0.05, 2.0),
        jerks: tuple[float, float] = (0.0, 3.0),
        gamma: tuple[float, float] = (1.0, 2.2),
        highlights: tuple[float, float] = (1.0, 2.0),
    ) -> None:
        check_range("extent", extent, 0, 512)
        check_range("inertia", inertia, 1e-3, 1e3)
        check_range("jerks", jerks, 0, _STEPS)
        check_range("gamma", gamma, 0.5, 4)
        check_range("highlights", highlights, 1, 64)
        self.extent = extent
        self.inertia = inertia
        self.jerks = jerks
        self.gamma = gamma
        self.highlights = highlights

    @property
    def reach(self) -> int:
        """Half of the longest path, and a little for one that is not symmetric."""
        return math.ceil(0.6 * self.extent[1])

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """See :meth:`Degradation.degrade`."""
        gamma, white = uniform(*self.gamma, generator), uniform(*self.highlights, generator)
        light = image**gamma
        light = torch.where(image < 1, light, white)
        light = convolve(light, self.psf(generator)).clamp(0, 1)
        return to_8_bit((light ** (1 / gamma)).to(image.dtype))

    def psf(self, generator: torch.Generator) -> Tensor:
        """One PSF: ``[K, K]`` float64, K odd, of sum 1 and with its centroid in the middle."""
        low, high = (math.log(bound) for bound in self.inertia)
        inertia = math.exp(uniform(low, high, generator))
        path = _walk(inertia, uniform(*self.jerks, generator), generator)
        side = float((path.amax(0) - path.amin(0)).max())
        path = path * (uniform(*self.extent, generator) / side)
        share = torch.arange(_FINER, dtype=path.dtype)[:, None, None] / _FINER
        return draw_psf(torch.lerp(path[:-1], path[1:], share).reshape(-1, 2))
