"""Snow: soft flakes of several depths, streaked by their motion, in front of a bright veil.

A flake hides a share of what is behind it and sends white light instead, as in Liu et al.,
"DesnowNet" (IEEE TIP 2018), whose Snow100K has discrete soft flakes of all sizes; in Hendrycks and
Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (ICLR
2019), dense streaks add their light to a whitened picture. A near flake is larger, faster, rarer
and less in focus than a far one (Barnum et al., "Analysis of Rain and Snow in Frequency Space",
IJCV 2010).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.degradations.base import Degradation, parameter, to_8_bit
from datamodules.randomness import integer, uniform
from mrdiff.photo.channels import LUMA

_OPAQUE = 0.995  # the optical depth of a wholly opaque flake would be infinite


class _Flakes(NamedTuple):
    """N flakes of one depth; every field is ``[N]``, lengths are in pixels."""

    y: Tensor
    x: Tensor
    radius: Tensor
    motion: Tensor  # half of the way that a flake falls during the exposure
    angle: Tensor  # radians from the vertical
    opacity: Tensor
    phase: Tensor  # of the ripple that makes the outline irregular


def _taken(flakes: _Flakes, which: Tensor) -> _Flakes:
    """The flakes of the indices ``which [M]``, which may repeat."""
    return _Flakes(*torch.stack(flakes).index_select(1, which))


def _opacity(flakes: _Flakes, dy: Tensor, dx: Tensor, softness: float) -> Tensor:
    """Opacity in [0, 1] of each flake at ``dy``, ``dx`` from its centre (``[..., N]``).

    The outline, where it is half opaque, is at the flake's radius from the line along which it
    moves, give or take a ripple; ``softness`` is the share of the radius over which it fades.
    """
    radius, motion = flakes.radius, flakes.motion
    sine, cosine = flakes.angle.sin(), flakes.angle.cos()
    along, across = dx * sine + dy * cosine, dx * cosine - dy * sine
    # Motion smears the flake: between its ends the streak has one cross-section.
    beyond = along - along.clamp(-motion, motion)
    ripple = torch.sin((2.5 * beyond + 1.5 * across) / radius + flakes.phase)
    distance = torch.sqrt(beyond.square() + across.square()) * (1 + 0.2 * ripple)
    edge = 1 + 2 * softness * radius  # at least a pixel, so that nothing is jagged
    share = ((radius / edge + 0.5) - distance / edge).clamp(0, 1)
    # The middle of a streak is covered for longest.
    reach = (motion + radius) * (motion + radius + edge)
    fade = 1 - (along * (motion / reach)).square()
    return share * share * (3 - 2 * share) * fade * flakes.opacity


def _optical_depth(flakes: _Flakes, softness: float, height: int, width: int) -> Tensor:
    """Minus the logarithm of the share of light that passes the flakes, ``[height, width]``.

    Depths add where flakes overlap: two that let through a half each let through a quarter.
    """
    # 1.25: where the ripple draws the outline outward.
    margin = 1.25 * (0.5 + (1 + softness) * flakes.radius)
    reach = math.ceil(float((flakes.motion + margin).max())) + 1
    # Flakes that do not reach the image are left out: a frame of twice the reach holds the others.
    seen = (flakes.y > -reach) & (flakes.y < height + reach)
    seen &= (flakes.x > -reach) & (flakes.x < width + reach)
    seen = seen.nonzero()[:, 0]
    flakes, margin = _taken(flakes, seen), margin[seen]
    row, column = flakes.y.floor(), flakes.x.floor()
    line = torch.arange(-reach, reach + 1)
    dy, dx = line[:, None] + (row - flakes.y), line[:, None] + (column - flakes.x)
    # Of the square around a thin streak most is empty: only the points near its line are drawn.
    sine, cosine = flakes.angle.sin(), flakes.angle.cos()
    hit = ((dx * cosine)[None] - (dy * sine)[:, None]).abs() < margin
    hit &= ((dx * sine)[None] + (dy * cosine)[:, None]).abs() < margin + flakes.motion
    i, j, which = hit.nonzero(as_tuple=True)
    opacity = _opacity(_taken(flakes, which), dy[i, which], dx[j, which], softness)
    depth = -torch.log1p(-_OPAQUE * opacity)
    frame = 2 * reach + 1
    stride = width + 2 * frame
    corner = ((row + frame - reach) * stride + column + frame - reach).long()
    size = (height + 2 * frame) * stride
    canvas = torch.bincount(corner[which] + i * stride + j, weights=depth, minlength=size)
    return canvas.view(-1, stride)[frame : frame + height, frame : frame + width]


@dataclass(frozen=True, kw_only=True, eq=False)
class Snow(Degradation):
    """Falling snow, from a few soft flakes (Snow100K) to a dense white storm (ImageNet-C).

    Every image draws one severity, which the density follows up its range, and one wind. Light is
    only ever added. With ``veil`` (0, 0), an ``opacity`` or ``density`` of (0, 0) or ``layers`` of
    (0, 0) leave the image as it is.

    Args:
        severity: where in [0, 1] an image lies between the lightest and the densest snow.
        layers: number of depths.
        size: diameter of a flake in pixels, far to near.
        density: share of the image that the farthest layer covers; near ones cover less.
        opacity: share of what is behind that a flake hides.
        softness: share of its radius over which a flake fades, 0 sharp, 1 wholly out of focus.
        angle: direction of the fall in degrees from the vertical.
        spread: how far in degrees a flake turns from it.
        streak: how far a flake falls during the exposure, in its own diameters.
        veil: share of the light that comes from fine snow in the air.
        veil_probability: how often there is a veil.
        airlight, glow: the veil's light is ``airlight + glow Y``: what the snow scatters of the
            sky and of the scene, Y being the scene's luminance; it whitens, and never darkens.
        screen_probability: how often flakes cover what is behind them, ``x + s (1 - x)``,
            instead of adding their light to it, ``x + s``.
    """

    severity: tuple[float, float] = parameter((0.0, 1.0), within=(0, 1))
    layers: tuple[int, int] = parameter((1, 6), within=(0, 32))
    size: tuple[float, float] = parameter((1.2, 14.0), within=(0.5, 128))
    density: tuple[float, float] = parameter((0.01, 0.45), within=(0, 0.95))
    opacity: tuple[float, float] = parameter((0.3, 1.0), within=(0, 1))
    softness: tuple[float, float] = parameter((0.4, 1.0), within=(0, 1))
    angle: tuple[float, float] = parameter((-45.0, 45.0), within=(-90, 90))
    spread: tuple[float, float] = parameter((0.0, 20.0), within=(0, 90))
    streak: tuple[float, float] = parameter((0.0, 6.0), within=(0, 32))
    veil: tuple[float, float] = parameter((0.1, 0.4), within=(0, 1))
    veil_probability: float = parameter(0.7, within=(0, 1))
    airlight: tuple[float, float] = parameter((0.4, 0.6), within=(0, 1))
    glow: tuple[float, float] = parameter((0.8, 1.6), within=(0, 4))
    screen_probability: float = parameter(0.5, within=(0, 1))

    @torch.no_grad()
    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        screen = uniform(0, 1, generator) < self.screen_probability
        hazy = self._veiled(image, generator)
        flakes = self.render(image.shape[-2], image.shape[-1], generator).to(image.dtype)
        return to_8_bit(hazy + flakes * (1 - hazy) if screen else hazy + flakes)

    def render(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        """The opacity of all flakes together: float64 ``[height, width]`` in [0, 1]."""
        severity = uniform(*self.severity, generator)
        count = integer(*self.layers, generator)
        wind = math.radians(uniform(*self.angle, generator))
        streak = uniform(*self.streak, generator)
        depth = torch.zeros(height, width, dtype=torch.float64)
        for layer in range(count):
            near = (layer + uniform(0, 1, generator)) / count  # 0 is far, 1 is near
            flakes = self._flakes(near, severity, wind, streak, height, width, generator)
            softness = uniform(*self.softness, generator)
            if len(flakes.y):
                depth += _optical_depth(flakes, softness, height, width)
        return -torch.expm1(-depth)

    def _flakes(
        self,
        near: float,
        severity: float,
        wind: float,
        streak: float,
        height: int,
        width: int,
        generator: torch.Generator,
    ) -> _Flakes:
        """The flakes of one depth, some of them outside of the image."""
        # Most of the air is far away: sizes near the lower end are the usual ones.
        size = self.size[0] + (self.size[1] - self.size[0]) * near * near
        opacity = uniform(*self.opacity, generator) * (1 - 0.4 * near)
        low, high = self.density
        density = low + (high - low) * severity * uniform(0.3, 1, generator)
        density *= 0.1 + 0.9 * (1 - near) ** 2
        area = math.pi / 4 * size * size + streak * size * size
        # Flakes of area A at a rate p a pixel leave exp(-p A) of the layer bare (Poisson).
        rate = -math.log1p(-density) / area
        # Snow falls into the image from beyond its borders, from as far as a flake can reach.
        beyond = math.ceil(size * (1.5 + 0.75 * streak)) + 1
        span = torch.tensor([height + 2.0 * beyond, width + 2.0 * beyond])
        count = int(torch.poisson(rate * span.prod(), generator=generator))
        chance = torch.rand(7, count, generator=generator)
        spread = math.radians(uniform(*self.spread, generator))
        return _Flakes(
            y=chance[0] * span[0] - beyond,
            x=chance[1] * span[1] - beyond,
            radius=size / 2 * (0.7 + 0.6 * chance[2]),
            motion=size * streak / 2 * (0.6 + 0.8 * chance[3]),
            angle=wind + spread * (2 * chance[4] - 1),
            opacity=opacity * (0.4 + 0.6 * chance[5]),
            phase=2 * math.pi * chance[6],
        )

    def _veiled(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """The scene seen through fine snow in the air, ``x + v max(airlight + glow Y - x, 0)``."""
        there = uniform(0, 1, generator) < self.veil_probability
        veil, airlight = uniform(*self.veil, generator), uniform(*self.airlight, generator)
        glow = uniform(*self.glow, generator)
        if not there:
            return image
        weights = image.new_tensor(LUMA if image.shape[0] == 3 else (1.0,))
        luminance = torch.einsum("c,chw->hw", weights, image)
        return image + veil * (airlight + glow * luminance - image).clamp(min=0)
