"""Haze: what is far fades into the light of the air.

Atmospheric scattering is ``I = J t + A (1 - t)`` with the transmission ``t = exp(-beta d)`` at
depth d (Koschmieder 1924; Narasimhan and Nayar, "Vision and the Atmosphere", IJCV 2002), applied to
the values of the file as RESIDE does (Li et al., IEEE TIP 2019). The depth is made up: a ground
that runs to a horizon, hills and nearer things, whose outlines are drawn to the edges of the photo
by a guided filter (He, Sun and Tang, "Guided Image Filtering", TPAMI 2013).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.degradations.base import Degradation, parameter, to_8_bit
from datamodules.degradations.fields import PHOTO_SIDE, smooth_field
from datamodules.randomness import uniform

_COARSE = 4  # the guided filter works on every fourth pixel,
_RADIUS = 4  # with windows of this radius there,
_FLATNESS = 0.01  # and takes a variance of the grey values well below this for no edge


def _ground(height: int, generator: torch.Generator) -> Tensor:
    """Logarithm of the depth of level ground under a sky, ``[height, 1]``, about 0 in the middle.

    A picture lower than a photo is a strip of one at a random height.
    """
    photo = max(PHOTO_SIDE, height)
    top = uniform(0, photo - height, generator)
    row = (top + 0.5 + torch.arange(height)[:, None]) / photo
    horizon = uniform(0.05, 0.55, generator)
    steepness = uniform(1.5, 10, generator)  # a camera near the ground looks far soon
    below = (row - horizon).clamp(min=0)
    # Depth falls with the angle under the horizon as 1 / angle, and the sky is at one depth.
    return -torch.log1p(steepness * below) + 0.75


def _along_edges(field: Tensor, image: Tensor) -> Tensor:
    """``field`` [H, W] with its steps moved to edges of ``image`` [C, H, W] (guided filter)."""
    size = [max(2, length // _COARSE) for length in field.shape]
    both = torch.stack([field, image.mean(0).to(field.dtype)])[:, None]
    small, guide = F.interpolate(both, size, mode="area")[:, 0]

    def averaged(maps: list[Tensor]) -> Tensor:
        stack = torch.stack(maps)[:, None]
        window = 2 * _RADIUS + 1
        return F.avg_pool2d(stack, window, 1, _RADIUS, count_include_pad=False)[:, 0]

    mean, mean_guide, square, product = averaged([small, guide, guide * guide, guide * small])
    slope = (product - mean * mean_guide) / (square - mean_guide * mean_guide + _FLATNESS)
    lines = averaged([slope, mean - slope * mean_guide])[:, None]
    lines = F.interpolate(lines, field.shape, mode="bilinear", align_corners=False)[:, 0]
    return lines[0] * both[1, 0] + lines[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Haze(Degradation):
    """Haze over a made-up landscape, from a light veil to the heavy haze of RESIDE.

    Pictures smaller than 400 pixels count as pieces of a photo, where depth hardly changes.

    Args:
        beta: optical depth of the middle distance, so that ``exp(-beta)`` of its own light comes
            through; (0, 0) leaves the image as it is.
        light: brightness A of the air, in image units.
        tint: how much more of A is red and less is blue, as a share of A.
        relief: how much the depth varies around the middle distance; 0 is one depth everywhere.
    """

    beta: tuple[float, float] = parameter((0.12, 1.0), within=(0, 20))
    light: tuple[float, float] = parameter((0.75, 1.0), within=(0, 1))
    tint: tuple[float, float] = parameter((-0.04, 0.03), within=(-0.5, 0.5))
    relief: tuple[float, float] = parameter((0.3, 1.4), within=(0, 4))

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        beta = uniform(*self.beta, generator)
        light, tint = uniform(*self.light, generator), uniform(*self.tint, generator)
        warmth = [tint, 0.0, -tint] if image.shape[0] == 3 else [0.0]
        air = (light * (1 + image.new_tensor(warmth))).clamp(max=1)[:, None, None]
        clear = torch.exp(-beta * self.depth(image, generator)).to(image.dtype)
        return to_8_bit(image * clear + air * (1 - clear))

    def depth(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Depth in units of the middle distance, float32 ``[H, W]`` above 0."""
        height, width = image.shape[-2:]
        photo = max(PHOTO_SIDE, height)
        chance = torch.rand(4, generator=generator).tolist()
        relief = uniform(*self.relief, generator)
        hills = smooth_field(height, width, span=photo, generator=generator)
        things = smooth_field(height, width, span=photo / 3, generator=generator)
        # Things stand in front of the rest where their field is high.
        near = (things > 1.5 * chance[0]).float()
        log_depth = chance[1] * _ground(height, generator) + 0.3 * chance[2] * hills
        log_depth = _along_edges(log_depth - 0.5 * chance[3] * near, image)
        return torch.exp(relief * log_depth)
