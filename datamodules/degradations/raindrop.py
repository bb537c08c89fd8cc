"""Raindrops on glass in front of the lens: small, inverted, defocused pictures of the scene.

Photo and drops are mixed by a soft mask as in Qian et al., "Attentive Generative Adversarial
Network for Raindrop Removal from a Single Image" (CVPR 2018), whose photos this imitates. A drop is
a short lens: it shows a wide piece of the scene upside down (Garg and Nayar, "Vision and Rain",
IJCV 2007), and as the camera focuses on the scene, it is spread over the circle of confusion (You
et al., "Adherent Raindrop Modeling, Detection and Removal in Video", TPAMI 2016). Outlines are
irregular, as in Roser et al., "Realistic Modeling of Water Droplets" (ACCV workshops 2010).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from datamodules.degradations.base import Degradation, parameter, to_8_bit
from datamodules.degradations.convolution import convolve_inside
from datamodules.randomness import uniform

_Plane = NDArray[np.float32]
_BUMPS = 3  # discs that make the outline of a drop irregular
_MEAN_BULGE = 1.25  # measured area of a drop with its bumps over that of its disc
_MEAN_TRAIL = 0.5  # measured area of a trail of one diameter, in squared diameters
_DRY = 1e-5  # less cover than this changes no 8-bit level


class _Drop(NamedTuple):
    """Lengths in pixels, from the top left corner of the glass."""

    y: float
    x: float
    radius: float
    view: float  # how many times smaller the scene looks in the drop
    light: float
    discs: _Plane  # [D, 3]: y, x, radius; the drop is their union


class Glass(NamedTuple):
    """Where the drops of one picture are and what they show; each plane is ``[H, W]``."""

    cover: _Plane  # 1 inside a drop, 0 outside
    light: _Plane  # brightness of what a drop shows, darker towards its rim
    low: _Plane  # from 0 at the top of a drop to 1 at its bottom
    source_y: _Plane  # the pixel of the picture that is seen
    source_x: _Plane


def _discs(y: float, x: float, radius: float, run: float, bumps: list[float]) -> _Plane:
    """The main disc of a drop, its bumps (for each: place and size in [0, 1]), its trail."""
    angle, share = 2 * np.pi * np.array(bumps[::2]), 0.55 + 0.35 * np.array(bumps[1::2])
    away = (1.3 - share) * radius
    parts = [np.array([[y, x, radius]])]
    parts.append(np.stack([y + away * np.sin(angle), x + away * np.cos(angle), share * radius], 1))
    if run > 0:
        up = np.linspace(0, 1, 2 + int(run / (0.25 * radius)))
        sway = 0.3 * radius * up * np.sin(4 * up + angle[0])
        parts.append(np.stack([y - run * up, x + sway, (0.8 - 0.5 * up) * radius], 1))
    return np.concatenate(parts).astype(np.float32)


def _put(owner: NDArray[np.intp], depth: _Plane, number: int, discs: _Plane) -> None:
    """Write ``number`` and the depth inside the outline where a drop lies, over older drops."""
    low, high = (discs[:, :2] - discs[:, 2:]).min(0), (discs[:, :2] + discs[:, 2:]).max(0)
    top, left = np.maximum(np.ceil(low), 0).astype(int)
    bottom, right = np.minimum(np.floor(high) + 1, owner.shape).astype(int)
    if top >= bottom or left >= right:
        return
    y = np.arange(top, bottom, dtype=np.float32)[:, None]
    x = np.arange(left, right, dtype=np.float32)
    disc_y, disc_x, radius = discs.T[:, :, None, None]
    inside = (radius - np.sqrt((y - disc_y) ** 2 + (x - disc_x) ** 2)).max(0)
    wet = inside > 0
    owner[top:bottom, left:right][wet] = number
    depth[top:bottom, left:right][wet] = inside[wet]


def _glass(drops: list[_Drop], shape: tuple[int, int], frame: int, rim: float) -> Glass:
    """Lay the drops, the first ones below, on a glass with ``frame`` pixels around the picture."""
    owner, depth = np.full(shape, -1), np.zeros(shape, np.float32)
    for number, drop in enumerate(drops):
        _put(owner, depth, number, drop.discs)
    nothing = (0.0, 0.0, 1.0, 0.0, 0.0)
    table = np.array([*(drop[:5] for drop in drops), nothing], np.float32)
    y, x, radius, view, light = table.T[:, owner]
    # Near the outline the water is steep and throws light out of the camera's way.
    steep = (1 - depth / (0.6 * radius)).clip(0, 1) ** 2
    dy = np.arange(shape[0], dtype=np.float32)[:, None] - y
    dx = np.arange(shape[1], dtype=np.float32) - x
    return Glass(
        cover=(owner >= 0).astype(np.float32),
        light=light * (1 - rim * steep),
        low=(0.5 + 0.5 * dy / radius).clip(0, 1),
        # A short lens: what lies a pixel below the centre is seen ``view`` pixels above it.
        source_y=y - view * dy - frame,
        source_x=x - view * dx - frame,
    )


def _seen(image: Tensor, glass: Glass, view: float) -> Tensor:
    """What the drops show of ``image``, ``[C, H, W]``; beyond its borders it is mirrored."""
    height, width = image.shape[-2:]
    # A scene shown ``view`` times smaller is averaged first, or fine detail would alias.
    small = [max(1, round(size / max(1.0, view))) for size in (height, width)]
    scene = F.interpolate(image[None], size=small, mode="area")
    source = np.stack([(2 * glass.source_x + 1) / width - 1, (2 * glass.source_y + 1) / height - 1])
    grid = torch.from_numpy(source).permute(1, 2, 0)[None].to(image.dtype)
    return F.grid_sample(scene, grid, padding_mode="reflection", align_corners=False)[0]


def _defocused(planes: Tensor, radius: float) -> Tensor:
    """``planes`` ``[N, H, W]`` averaged over a disc, less a frame of ``ceil(radius)`` pixels."""
    half = math.ceil(radius)
    line = torch.arange(-half, half + 1, dtype=planes.dtype)
    disc = (radius + 0.5 - torch.hypot(line[:, None], line)).clamp(0, 1)
    return convolve_inside(planes, disc / disc.sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class Raindrop(Degradation):
    """Drops on a window or on the lens, at the scale of photos of about 700 x 480 pixels.

    Every pixel that no drop reaches stays as it was; a ``density`` of (0, 0) is dry glass. Any
    other has at least one drop, which makes patches not much larger than a drop a little wetter.

    Args:
        density: share of the glass under drops, before the defocus spreads them.
        size: diameter of a drop in pixels, mostly small; each image draws its largest one.
        defocus: radius in pixels of the circle of confusion of the glass.
        view: how many times smaller than in the photo the scene looks in a drop, upside down.
        sky: share of white light from the sky at the bottom of a drop; its top has none.
        light: brightness of what a drop shows, as a factor on linear light.
        rim: how much of its light a drop loses towards its outline.
        run_probability: how often a drop has run down and left a trail.
        run: length of that trail, in diameters of the drop.
    """

    density: tuple[float, float] = parameter((0.04, 0.3), within=(0, 0.95))
    size: tuple[float, float] = parameter((8.0, 48.0), within=(2, 256))
    defocus: tuple[float, float] = parameter((1.5, 10.0), within=(0.5, 64))
    view: tuple[float, float] = parameter((3.0, 10.0), within=(0.1, 64))
    sky: tuple[float, float] = parameter((0.0, 0.6), within=(0, 1))
    light: tuple[float, float] = parameter((0.7, 1.6), within=(0, 8))
    rim: tuple[float, float] = parameter((0.0, 0.6), within=(0, 1))
    run_probability: float = parameter(0.08, within=(0, 1))
    run: tuple[float, float] = parameter((1.0, 4.0), within=(0, 16))

    @torch.no_grad()
    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        height, width = image.shape[-2:]
        defocus, view = uniform(*self.defocus, generator), uniform(*self.view, generator)
        # Light from a frame around the picture is spread into it.
        frame = math.ceil(defocus)
        glass = self.render(height, width, frame, view, generator)
        planes = np.stack([glass.cover, glass.light, glass.low])
        cover, light, low = torch.from_numpy(planes).to(image.dtype)
        sky = low * uniform(*self.sky, generator)
        # Lenses mix light, not its codes: a bright sky outweighs the dark around it.
        scene = image.square()
        # Upside down, the sky above the picture is in the lower part of a drop.
        seen = _seen(scene, glass, view) * (1 - sky) + sky
        shown = (seen * light).clamp(max=1) * cover
        cover, *shown = _defocused(torch.cat([cover[None], shown]), defocus)
        wet = ((1 - cover) * scene + torch.stack(shown)).clamp(min=0).sqrt()
        return to_8_bit(torch.where(cover > _DRY, wet, image))

    def render(
        self, height: int, width: int, frame: int, view: float, generator: torch.Generator
    ) -> Glass:
        """The drops on a glass with ``frame`` pixels around the image, whose corner is (0, 0)."""
        shape = (height + 2 * frame, width + 2 * frame)
        drops = self._drops(*shape, view, generator)
        return _glass(drops, shape, frame, uniform(*self.rim, generator))

    def _drops(
        self, height: int, width: int, view: float, generator: torch.Generator
    ) -> list[_Drop]:
        """The drops, large ones first, some of them partly or wholly outside of the glass."""
        small, large = self.size
        # Some glasses have only small drops: each picture draws its largest one.
        octaves = math.log(large / small) * uniform(0.25, 1, generator)
        large = small * math.exp(octaves)
        rate = self._rate(uniform(*self.density, generator), octaves)
        # Water reaches into the glass from beyond its borders, and trails from below.
        beyond = 0.7 * large
        below = beyond + (self.run[1] * large if self.run_probability else 0)
        span = torch.tensor([height + beyond + below, width + 2 * beyond])
        count = int(torch.poisson(rate * span.prod(), generator=generator))
        chance = torch.rand(count + 1, 7 + 2 * _BUMPS, generator=generator)
        centre = chance[:, 5:7] * span - beyond
        size = torch.tensor([height, width])
        dry = not bool(((centre >= 0) & (centre < size))[:count].all(1).any())
        if rate > 0 and dry:  # the spare drop of the last row falls on the glass
            centre[count] = chance[count, 5:7] * size
            count += 1
        (short, long), (faint, bright) = self.run, self.light
        drops = []
        for (y, x), row in zip(centre[:count].tolist(), chance.tolist(), strict=False):
            radius = small / 2 * math.exp(octaves * row[0])
            trail = 2 * radius * (short + (long - short) * row[2])
            discs = _discs(y, x, radius, trail if row[1] < self.run_probability else 0.0, row[7:])
            light = faint + (bright - faint) * row[3]
            drops.append(_Drop(y, x, radius, view * (0.7 + 0.6 * row[4]), light, discs))
        return sorted(drops, key=lambda drop: -drop.radius)

    def _rate(self, density: float, octaves: float) -> float:
        """Drops a pixel, for ``density`` and sizes uniform over some (natural) octaves."""
        # The mean of d^2 where log d is uniform between the two sizes.
        growth = math.expm1(2 * octaves) / (2 * octaves) if octaves > 1e-6 else 1.0
        trail = self.run_probability * _MEAN_TRAIL * (self.run[0] + self.run[1]) / 2
        area = (math.pi / 4 * _MEAN_BULGE + trail) * self.size[0] ** 2 * growth
        # Drops of area A at a rate p a pixel leave exp(-p A) of the glass dry (Poisson).
        return -math.log1p(-density) / area
