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

from datamodules.degradations.base import BatchDegradation, Degraded, parameter, to_8_bit
from datamodules.degradations.fields import PHOTO_SIDE, draw_waves, smooth_fields
from datamodules.degradations.packing import Draws, Shape, per_image
from datamodules.randomness import uniform

_COARSE = 4  # the guided filter works on every fourth pixel,
_RADIUS = 4  # with windows of this radius there,
_FLATNESS = 0.01  # and takes a variance of the grey values well below this for no edge


def _draw_ground(generator: torch.Generator, height: int) -> list[float]:
    """Where a picture of this height stands on level ground under a sky, for :func:`_ground`.

    A picture lower than a photo is a strip of one at a random height.
    """
    photo = max(PHOTO_SIDE, height)
    top, horizon = uniform(0, photo - height, generator), uniform(0.05, 0.55, generator)
    steepness = uniform(1.5, 10, generator)  # a camera near the ground looks far soon
    return [top / photo - horizon, steepness]


def _ground(start: Tensor, steepness: Tensor, height: int) -> Tensor:
    """Logarithm of the depth of the ground, ``[B, height]``, about 0 in the middle of a photo.

    Args:
        start: ``[B, 1]``, of the first row under the horizon, in heights of a photo.
        steepness: ``[B, 1]``, how soon the ground is near.
        height: of the pictures in pixels.
    """
    row = (torch.arange(height, device=start.device) + 0.5) / max(PHOTO_SIDE, height)
    below = (row + start).clamp_(min=0)
    # Depth falls with the angle under the horizon as 1 / angle, and the sky is at one depth.
    return 0.75 - torch.log1p(steepness * below)


def _along_edges(fields: Tensor, images: Tensor) -> Tensor:
    """``fields`` [B, H, W], their steps at edges of ``images`` [B, C, H, W] (guided filter)."""
    size = [max(2, length // _COARSE) for length in fields.shape[-2:]]
    guides = images.mean(1).to(fields.dtype)
    small, guide = F.interpolate(torch.stack([fields, guides]), size, mode="area")

    def averaged(*maps: Tensor) -> Tensor:
        # The mean over a square is that of means over its rows, also where the border cuts it.
        found, long = torch.stack(maps), 2 * _RADIUS + 1
        for window, pad in (((1, long), (0, _RADIUS)), ((long, 1), (_RADIUS, 0))):
            found = F.avg_pool2d(found, window, 1, pad, count_include_pad=False)
        return found

    mean, mean_guide, square, product = averaged(small, guide, guide * guide, guide * small)
    slope = (product - mean * mean_guide) / (square - mean_guide * mean_guide + _FLATNESS)
    lines = averaged(slope, mean - slope * mean_guide)
    slope, start = F.interpolate(lines, fields.shape[-2:], mode="bilinear", align_corners=False)
    return torch.addcmul(start, slope, guides)


@dataclass(frozen=True, kw_only=True, eq=False)
class Haze(BatchDegradation):
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
    light: tuple[float, float] = parameter((0.72, 1.0), within=(0, 1))
    tint: tuple[float, float] = parameter((-0.08, 0.03), within=(-0.5, 0.5))
    relief: tuple[float, float] = parameter((0.3, 1.4), within=(0, 4))

    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        beta = uniform(*self.beta, generator)
        light, tint = uniform(*self.light, generator), uniform(*self.tint, generator)
        warmth = (tint, 0.0, -tint) if shape[0] == 3 else (0.0,)
        air = torch.tensor([[min(1.0, light * (1 + warm)) for warm in warmth]])
        return {"beta": beta, "air": air} | self.landscape(generator, shape[1])

    def landscape(self, generator: torch.Generator, height: int) -> Draws:
        """What is drawn for :func:`depths` of a picture of this height."""
        photo = max(PHOTO_SIDE, height)
        near, ground, hills, things = torch.rand(4, generator=generator).tolist()
        relief = uniform(*self.relief, generator)
        waves = torch.cat([draw_waves(photo, generator), draw_waves(photo / 3, generator)])
        scene = [relief, ground, 0.3 * hills, 0.5 * things, 1.5 * near]
        return {"waves": waves, "scene": torch.tensor([scene + _draw_ground(generator, height)])}

    def apply(self, images: Tensor, draws: Draws) -> Degraded:
        beta, air = draws["beta"][:, None, None], per_image(draws["air"]).to(images.dtype)
        clear = torch.exp(depths(images, draws).mul_(-beta)).to(images.dtype)
        return Degraded(to_8_bit(torch.lerp(air, images, clear[:, None])))


def depths(images: Tensor, draws: Draws) -> Tensor:
    """Depth in units of the middle distance, float32 ``[B, H, W]`` above 0."""
    height, width = images.shape[-2:]
    relief, ground, hills, things, near, start, steepness = draws["scene"].T[..., None, None]
    high, standing = smooth_fields(draws["waves"], height, width).unflatten(0, (-1, 2)).unbind(1)
    log_depth = ground * _ground(start[..., 0], steepness[..., 0], height)[..., None] + hills * high
    # Things stand in front of the rest where their field is high.
    log_depth -= things * (standing > near)
    return torch.exp(relief * _along_edges(log_depth, images))
