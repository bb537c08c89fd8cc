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

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from datamodules.degradations.base import Degraded, parameter, to_8_bit
from datamodules.degradations.convolution import convolve_inside
from datamodules.degradations.glass import drop_discs, glass_of, top_drops
from datamodules.degradations.grouped import GroupedDegradation
from datamodules.degradations.packing import Draws, Shape
from datamodules.randomness import uniform

_Array = NDArray[np.float64]
_BUMPS = 3  # discs that make the outline of a drop irregular
_MEAN_BULGE = 1.25  # measured area of a drop with its bumps over that of its disc
_MEAN_TRAIL = 0.5  # measured area of a trail of one diameter, in squared diameters
_LEVEL = 0.6  # of its radius inside its outline, a drop is level
_FINE = 3  # pixels that the radius of a blur has at least where fewer than all are blurred
_CORNER = np.array([0.5, 0.5, 0])  # from the centre of the first pixel to its corner
_DRY = 1e-6  # less light than this is an error of the FFT


def _disc(radius: float) -> Tensor:
    """The circle of confusion, a mean over a disc: ``[1, K, K]``, K odd."""
    line = np.arange(-math.ceil(radius), math.ceil(radius) + 1)
    disc = (radius + 0.5 - np.hypot(line[:, None], line)).clip(0, 1)
    return torch.from_numpy(disc / disc.sum()).float()[None]


def _windows(width: Tensor, length: int, cells: int) -> Tensor:
    """Weights ``[B, cells, length]`` of means over ``width`` ``[B]`` of so many pixels."""
    centre = (torch.arange(cells, device=width.device) + 0.5) * (length / cells) - 0.5
    apart = (centre[:, None] - torch.arange(length, device=width.device)).abs()
    shared = ((width[:, None, None] + 1) / 2 - apart).clamp_(0, 1)
    return shared / shared.sum(2, keepdim=True)


def averaged(scene: Tensor, view: Tensor, least: float) -> Tensor:
    """``scene`` ``[B, C, H, W]`` averaged over squares of ``view`` ``[B]`` pixels, at least 1.

    One pixel of the result is about ``least`` wide, the smallest view. What is shown so many times
    smaller would else alias.
    """
    view = view.clamp(min=1).to(scene.dtype)
    down, right = (
        _windows(view, side, max(1, round(side / max(1.0, least)))) for side in scene.shape[-2:]
    )
    return down[:, None] @ scene @ right[:, None].mT


@dataclass(frozen=True, kw_only=True, eq=False)
class Raindrop(GroupedDegradation):
    """Drops on a window or on the lens, at the scale of photos of about 700 x 480 pixels.

    A pixel that no drop reaches changes by the ``film`` alone; a ``density`` of (0, 0) is dry
    glass. Any other has at least one drop, which makes small patches a little wetter.

    Not shown: the corners of an aperture that is no circle, glints brighter than white, and what
    lies outside of the picture, whose mirror image stands in for it.

    Args:
        density: share of the glass under drops, before the defocus spreads them.
        size: diameter of a drop in pixels, mostly small; each image draws its largest one.
        defocus: radius in pixels of the circle of confusion of the glass.
        view: how many times smaller than in the photo the scene looks in a drop, upside down.
        film: share of light that the water between drops spreads as the defocus does.
        sky: share of white light from the sky at the bottom of a drop; its top has none.
        light: brightness of what a drop shows, as a factor on linear light.
        rim: how much of its light a drop loses towards its outline.
        run_probability: how often a drop has run down and left a trail.
        run: length of that trail, in diameters of the drop.
    """

    density: tuple[float, float] = parameter((0.05, 0.55), within=(0, 0.95))
    size: tuple[float, float] = parameter((8.0, 48.0), within=(2, 256))
    defocus: tuple[float, float] = parameter((1.5, 18.0), within=(0.5, 64))
    view: tuple[float, float] = parameter((3.0, 10.0), within=(0.1, 64))
    film: tuple[float, float] = parameter((0.0, 0.35), within=(0, 1))
    sky: tuple[float, float] = parameter((0.0, 0.5), within=(0, 1))
    light: tuple[float, float] = parameter((0.5, 1.5), within=(0, 8))
    rim: tuple[float, float] = parameter((0.0, 0.6), within=(0, 1))
    run_probability: float = parameter(0.08, within=(0, 1))
    run: tuple[float, float] = parameter((1.0, 4.0), within=(0, 16))

    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        height, width = shape[1:]
        defocus, view = uniform(*self.defocus, generator), uniform(*self.view, generator)
        # What is spread widely afterwards, and is not small, is as good in fewer pixels.
        scale = 1
        while defocus >= 2 * scale * _FINE and self.size[0] >= 2 * scale:
            scale *= 2
        # Light from a frame around the picture is spread into it.
        drops, discs, counts = self._drops(height, width, math.ceil(defocus), view, generator)
        discs = (discs + _CORNER) / scale - _CORNER
        size, frame = (-(-height // scale), -(-width // scale)), math.ceil(defocus / scale)
        y, x, radius, views, light = drops.T
        table = [
            # A short lens: what lies a pixel below the centre is seen ``view`` pixels above it. The
            # borders of the picture are at -1 and 1.
            (2 * (1 + views) * y + 1) / height - 1,
            (2 * (1 + views) * x + 1) / width - 1,
            views,
            # From 0 at the top of a drop to 1 at its bottom.
            0.5 - 0.5 * y / radius,
            0.5 / radius,
            light,
        ]
        # Through dry glass, all is seen in its place.
        dry = [1 / height - 1, 1 / width - 1, -1, 0, 0, 1]
        seen = np.concatenate([[dry], np.stack(table, axis=1)])
        return {
            "scale": scale,
            "view": view,
            "disc": _disc(defocus / scale),
            "rim": uniform(*self.rim, generator),
            "sky": uniform(*self.sky, generator),
            "film": uniform(*self.film, generator) if counts else 0.0,
            "seen": torch.from_numpy(seen).float(),
            "kinds": len(seen),
            **glass_of(discs, counts, _LEVEL * radius / scale, size, frame + (scale > 1)),
        }

    def kind(self, draws: Draws) -> int:
        """The scale at which drops are drawn."""
        scale: int = draws["scale"]
        return scale

    def apply_alike(self, images: Tensor, kind: int, draws: Draws) -> Degraded:
        scale, (height, width) = kind, images.shape[-2:]
        # Lenses mix light, not its codes: a bright sky outweighs the dark around it.
        scene = images.square()
        drops = convolve_inside(self._drops_of(scene, draws, scale), draws["disc"])
        if scale > 1:
            drops = F.interpolate(drops, scale_factor=scale, mode="bilinear", align_corners=False)
            drops = drops[..., scale : scale + height, scale : scale + width]
        drops = (drops - _DRY).clamp_(min=0)
        wet = ((1 - drops[:, :1]) * scene).add_(drops[:, 1:]).sqrt_()
        return Degraded(to_8_bit(wet))

    def _drops_of(self, scene: Tensor, drawn: Draws, scale: int) -> Tensor:
        """Sharp drops: how much of each pixel they cover, and the light from there.

        ``[B, 1 + C, h, w]``, with a frame of pixels of the ``scale`` that the defocus reaches, and
        one more where these are not the picture's.
        """
        height, width = scene.shape[-2:]
        size = -(-height // scale), -(-width // scale)
        frame = drawn["disc"].shape[-1] // 2 + (scale > 1)
        drop, inside, cover = top_drops(drawn, *size, frame)
        rim, sky, film, kinds = (drawn[k][:, None, None] for k in ("rim", "sky", "film", "kinds"))
        which = (kinds.cumsum(0) - kinds + drop).flatten()
        table = drawn["seen"].to(scene.dtype).T.index_select(1, which)
        y, x, view, top, fall, light = table.view(-1, *drop.shape)
        row, column = (
            (torch.arange(-frame, side + frame, device=scene.device) + 0.5) * scale - 0.5
            for side in size
        )
        row = row[:, None]
        grid = torch.stack([x - view * (column * (2 / width)), y - view * (row * (2 / height))], 1)
        seen = F.grid_sample(
            averaged(scene, drawn["view"] * scale, self.view[0] * scale),
            grid.permute(0, 2, 3, 1),
            padding_mode="reflection",  # beyond its borders the scene is mirrored
            align_corners=False,
        )
        # Upside down, the sky above the picture is in the lower part of a drop.
        sky = ((top + fall * row).clamp_(0, 1) * sky)[:, None]
        # Near the outline the water is steep and throws light out of the camera's way.
        light = light * (1 - rim * (1 - inside).square_())
        shown = torch.lerp(seen, seen.new_ones(()), sky).mul_(light[:, None]).clamp_(max=1)
        cover = torch.lerp(film, film.new_ones(()), cover).to(scene.dtype)[:, None]
        return torch.cat([cover, shown.mul_(cover)], dim=1)

    def _drops(
        self, height: int, width: int, frame: int, view: float, generator: torch.Generator
    ) -> tuple[_Array, _Array, list[int]]:
        """The drops on a picture with a frame, large ones first, some partly or wholly outside.

        Returns:
            ``[N, 5]``: y, x, radius, view, light; their discs, and how many are of each.
        """
        small, large = self.size
        # Some glasses have only small drops: each picture draws its largest one.
        octaves = math.log(large / small) * uniform(0.25, 1, generator)
        large = small * math.exp(octaves)
        rate = self._rate(uniform(*self.density, generator), octaves)
        # Water reaches into the glass from beyond its borders, and trails from below.
        beyond = 0.7 * large
        below = beyond + (self.run[1] * large if self.run_probability else 0)
        size = np.array([height + 2 * frame, width + 2 * frame])
        span = torch.tensor([size[0] + beyond + below, size[1] + 2 * beyond])
        count = int(torch.poisson(rate * span.prod(), generator=generator))
        chance = torch.rand(count + 1, 7 + 2 * _BUMPS, generator=generator).double().numpy()
        centre = chance[:, 5:7] * span.numpy() - beyond
        dry = not ((centre >= 0) & (centre < size))[:count].all(1).any()
        if rate > 0 and dry:  # the spare drop of the last row falls on the glass
            centre[count] = chance[count, 5:7] * size
            count += 1
        order = (-chance[:count, 0]).argsort(kind="stable")
        chance, (y, x) = chance[order], centre[order].T - frame
        radius = small / 2 * np.exp(octaves * chance[:, 0])
        (short, long), (faint, bright) = self.run, self.light
        trail = 2 * radius * (short + (long - short) * chance[:, 2])
        trail *= chance[:, 1] < self.run_probability
        light = faint + (bright - faint) * chance[:, 3]
        drops = np.stack([y, x, radius, view * (0.7 + 0.6 * chance[:, 4]), light], axis=1)
        return drops, *drop_discs(y, x, radius, trail, chance[:, 7:])

    def _rate(self, density: float, octaves: float) -> float:
        """Drops a pixel, for ``density`` and sizes uniform over some (natural) octaves."""
        # The mean of d^2 where log d is uniform between the two sizes.
        growth = math.expm1(2 * octaves) / (2 * octaves) if octaves > 1e-6 else 1.0
        trail = self.run_probability * _MEAN_TRAIL * (self.run[0] + self.run[1]) / 2
        area = (math.pi / 4 * _MEAN_BULGE + trail) * self.size[0] ** 2 * growth
        # Drops of area A at a rate p a pixel leave exp(-p A) of the glass dry (Poisson).
        return -math.log1p(-density) / area
