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

import numpy as np
import torch
from torch import Tensor

from datamodules.degradations.base import BatchDegradation, Degraded, parameter, to_8_bit
from datamodules.degradations.packing import Draws, Shape, owners, per_image
from datamodules.degradations.spans import PIECE, columns_of, points_of, rectangles
from datamodules.randomness import integer, uniform
from mrdiff.photo.channels import LUMA

_OPAQUE = 0.995  # the optical depth of a wholly opaque flake would be infinite
_FIELDS = 8
"""Of a flake: y and x of its centre, its radius and half of the way that it falls during the
exposure, all in pixels; the radians of that way from the vertical; its opacity; the phase of the
ripple that makes its outline irregular; the share of its radius over which it fades."""


def _seen(flakes: np.ndarray, height: int, width: int) -> Draws:
    """Those of ``flakes`` ``[_FIELDS, N]`` that reach a picture, and where in it they may be."""
    y, x, radius, motion, angle, _, _, softness = flakes
    margin = 1.25 * (0.5 + (1 + softness) * radius)  # the ripple draws the outline outward
    counts, places = rectangles(y, x, angle, motion + margin, margin, height=height, width=width)
    seen = counts > 0
    table = torch.from_numpy(flakes.T)[seen]
    return {"flakes": table, "number": len(table), "pieces": counts[seen], "places": places}


def opacity(flakes: Tensor, whose: Tensor, places: Tensor) -> Tensor:
    """Opacity in [0, 1] of flakes at all points of their pieces, ``[PIECE, S]``.

    The outline, where it is half opaque, is at the flake's radius from the line along which it
    moves, give or take a ripple.

    Args:
        flakes: ``[N, _FIELDS]``.
        whose: int64 ``[S]``, of which flake a piece is.
        places: of the pieces, int ``[S, 2]``.
    """
    y, x, radius, motion, angle, strength, phase, softness = flakes.T
    edge = 1 + 2 * softness * radius  # at least a pixel, so that nothing is jagged
    # The middle of a streak is covered for longest.
    faint = strength * (motion / ((motion + radius) * (motion + radius + edge))).square()
    table = [y, x, angle.sin(), angle.cos(), radius, motion, phase, strength, faint, edge]
    of_pieces = torch.stack(table).index_select(1, whose)
    y, x, sine, cosine, radius, motion, phase, strength, faint, edge = of_pieces
    dy, dx = places[:, 0] - y, columns_of(places) - x
    along = torch.addcmul(dy * cosine, dx, sine)
    across = torch.addcmul(-dy * sine, dx, cosine)
    # Motion smears the flake: between its ends the streak has one cross-section.
    beyond = along - along.clamp(-motion, motion)
    ripple = (beyond * 2.5).add_(across, alpha=1.5).div_(radius).add_(phase).sin_()
    distance = beyond.square_().addcmul_(across, across).sqrt_()
    distance.addcmul_(distance, ripple, value=0.2)
    share = distance.sub_(radius).div_(edge).neg_().add_(0.5).clamp_(0, 1)
    smooth = share.square().mul_(share.mul_(-2).add_(3))
    return smooth.mul_(strength - along.square_().mul_(faint))


def covered(draws: Draws, batch: int, height: int, width: int) -> Tensor:
    """The opacity of all flakes together: float32 ``[batch, height, width]`` in [0, 1]."""
    flakes, places = draws["flakes"], draws["places"]
    whose = owners(draws["pieces"], total=len(places))
    image = owners(draws["number"], total=len(flakes))[whose]
    # Depths add where flakes overlap: two that let through a half each let through a quarter.
    depth = opacity(flakes, whose, places).mul_(-_OPAQUE).log1p_()
    points = points_of(places, image, height, width)
    canvas = depth.new_zeros(batch * height * (width + PIECE))
    canvas.scatter_add_(0, points.flatten(), depth.flatten())
    return 1 - canvas.view(batch, height, -1)[..., :width].exp()


@dataclass(frozen=True, kw_only=True, eq=False)
class Snow(BatchDegradation):
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

    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        screen = uniform(0, 1, generator) < self.screen_probability
        there = uniform(0, 1, generator) < self.veil_probability
        veil, airlight = uniform(*self.veil, generator), uniform(*self.airlight, generator)
        glow = uniform(*self.glow, generator)
        light = {"screen": float(screen), "veil": veil * there, "airlight": airlight, "glow": glow}
        return light | self.falling(generator, *shape[1:])

    def falling(self, generator: torch.Generator, height: int, width: int) -> Draws:
        """The flakes alone, for :func:`covered`."""
        severity = uniform(*self.severity, generator)
        count = integer(*self.layers, generator)
        wind = math.radians(uniform(*self.angle, generator))
        streak = uniform(*self.streak, generator)
        layers = [np.empty((_FIELDS, 0), np.float32)]
        for layer in range(count):
            near = (layer + uniform(0, 1, generator)) / count  # 0 is far, 1 is near
            layers.append(self._layer(near, severity, wind, streak, height, width, generator))
        return _seen(np.concatenate(layers, axis=1), height, width)

    def _layer(
        self,
        near: float,
        severity: float,
        wind: float,
        streak: float,
        height: int,
        width: int,
        generator: torch.Generator,
    ) -> np.ndarray:
        """The flakes of one depth, ``[_FIELDS, N]``, some of them outside of the image."""
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
        tall, wide = height + 2 * beyond, width + 2 * beyond
        count = int(torch.poisson(torch.tensor(rate * tall * wide), generator=generator))
        chance = torch.rand(7, count, generator=generator).numpy()
        spread = math.radians(uniform(*self.spread, generator))
        flakes = np.empty((_FIELDS, count), np.float32)
        bounds = [  # where the chance is 0, and where it is 1
            (-beyond, tall - beyond),
            (-beyond, wide - beyond),
            (0.35 * size, 0.65 * size),
            (0.3 * size * streak, 0.7 * size * streak),
            (wind - spread, wind + spread),
            (0.4 * opacity, opacity),
            (0.0, 2 * math.pi),
        ]
        first, last = np.array(bounds, np.float32).T[..., None]
        flakes[:7] = first + (last - first) * chance
        flakes[7] = uniform(*self.softness, generator)
        return flakes

    def apply(self, images: Tensor, draws: Draws) -> Degraded:
        batch, _, height, width = images.shape
        flakes = covered(draws, batch, height, width)[:, None].to(images.dtype)
        passing = 1 - per_image(draws["screen"]) * flakes
        return Degraded(to_8_bit(torch.addcmul(flakes, _veiled(images, draws), passing)))


def _veiled(images: Tensor, draws: Draws) -> Tensor:
    """The scene seen through fine snow in the air, ``x + v max(airlight + glow Y - x, 0)``."""
    veil, airlight, glow = (per_image(draws[name]) for name in ("veil", "airlight", "glow"))
    luminance = images
    if images.shape[1] == 3:
        red, green, blue = images.split(1, dim=1)
        luminance = (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
    more = (airlight + glow * luminance - images).clamp_(min=0)
    return torch.addcmul(images, veil.to(images.dtype), more)
