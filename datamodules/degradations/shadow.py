"""Shadow: the light of the sun is missing, that of the blue sky is not.

A surface in the open gets direct and sky light, in shadow sky light alone, and in the penumbra a
share of the direct light; so linear values fall to a share that differs between the channels (Guo,
Dai and Hoiem, "Paired Regions for Shadow Detection and Removal", TPAMI 2013; Le and Samaras,
"Shadow Removal via Shadow Image Decomposition", ICCV 2019). The outline is a random polygon or a
smooth closed curve; the penumbra is the outline blurred, more so farther from what casts it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from datamodules.degradations.base import BatchDegradation, Degraded, parameter, to_8_bit
from datamodules.degradations.fields import PHOTO_SIDE, draw_waves, smooth_fields
from datamodules.degradations.packing import Draws, Shape, owners, per_image
from datamodules.degradations.srgb import to_linear, to_srgb
from datamodules.randomness import integer, log_uniform, new_seed, uniform

_EDGE = 12.0  # pixels of the width of an edge that show all of it


def _outline(smooth: bool, rng: np.random.Generator) -> np.ndarray:
    """Corners ``[N, 2]`` of a closed line around the origin, of radius about 1."""
    if smooth:
        angle = np.linspace(0, 2 * math.pi, 72, endpoint=False)
        wave = np.arange(1, 7)[:, None]
        height = rng.normal(size=(6, 1)) * 0.5 / wave
        phase = rng.uniform(0, 2 * math.pi, (6, 1))
        radius = np.exp((height * np.cos(wave * angle + phase)).sum(0))
    else:
        corners = int(rng.integers(4, 11))
        angle = 2 * math.pi * (np.arange(corners) + rng.uniform(0, 0.8, corners)) / corners
        radius = rng.uniform(0.4, 1.2, corners)
    long = math.exp(rng.uniform(0, 1.3))  # from round to the shadow of a post
    turn = rng.uniform(0, 2 * math.pi)
    sine, cosine = math.sin(turn), math.cos(turn)
    axes = np.array([[cosine, sine], [-sine, cosine]]) * [[math.sqrt(long)], [1 / math.sqrt(long)]]
    return (radius * [np.cos(angle), np.sin(angle)]).T @ axes


def _blurred(outline: np.ndarray, height: int, width: int, edge: float) -> np.ndarray | None:
    """The inside of ``outline`` ``[N, 2]`` (x, y), its edge so wide, uint8 ``[height, width]``.

    None where nothing of it is in sight.
    """
    pad = math.ceil(edge / 2)  # what is beyond the picture is blurred into it
    scale = max(1.0, edge / _EDGE)  # a wide edge needs fewer pixels
    sides = [math.ceil((side + 2 * pad) / scale) for side in (width, height)]
    canvas = Image.new("L", (sides[0], sides[1]))
    ImageDraw.Draw(canvas).polygon(((outline + pad) / scale).ravel().tolist(), fill=255)
    if canvas.getbbox() is None:
        return None
    # Four standard deviations hold 95 % of the edge.
    blurred = canvas.filter(ImageFilter.GaussianBlur(edge / scale / 4))
    if scale == 1:
        return np.asarray(blurred)[pad : pad + height, pad : pad + width]
    box = pad / scale, pad / scale, (pad + width) / scale, (pad + height) / scale
    return np.asarray(blurred.resize((width, height), Image.Resampling.BILINEAR, box))


def soft_edges(shapes: Tensor, slopes: Tensor) -> Tensor:
    """Shapes with blurred edges, uint8 ``[S, H, W]``, as float32 in [0, 1] with narrower ones.

    The odds ``p : 1 - p`` grow about exponentially across a blurred edge, so their power is a
    narrower edge in the same place, and what was monotone stays so. Its logarithm is linear in the
    place: ``slopes`` ``[S, 3]`` are its value in the middle and what it gains from there to the
    bottom and to the right; the power is at least 1.
    """
    device, (height, width) = shapes.device, shapes.shape[1:]
    middle, down, right = slopes[:, :, None].unbind(1)
    rows = torch.exp(middle + down * torch.linspace(-1, 1, height, device=device))
    columns = torch.exp(right * torch.linspace(-1, 1, width, device=device))
    odds = torch.logit(torch.arange(256, device=device) / 255)
    odds = odds.index_select(0, shapes.flatten().int()).view(shapes.shape)
    return torch.sigmoid(odds * (rows[:, :, None] * columns[:, None]))


def shades(draws: Draws) -> Tensor:
    """How much of the sun is hidden: float32 ``[B, H, W]`` in [0, 1].

    One sun: where two shadows meet it is no darker than in either.
    """
    soft = soft_edges(draws["shapes"], draws["slopes"])
    whose = owners(draws["count"], total=len(soft))
    none = soft.new_zeros(len(draws["count"]), *soft.shape[1:])
    return none.scatter_reduce_(0, whose[:, None, None].expand_as(soft), soft, "amax")


@dataclass(frozen=True, kw_only=True, eq=False)
class Shadow(BatchDegradation):
    """One shadow or a few of one sun, with soft edges and a bluish inside.

    Pictures smaller than 400 pixels count as pieces of a photo: shadows keep their size in
    pixels, and mostly cross the edges of the picture.

    Not shown: the sides of things that are turned away from the sun, whose texture changes too;
    shadows that bend with the ground; several lamps, each with a shadow of its own; the specks of
    light under leaves.

    Args:
        light: share of the linear light that is left in full shadow; (1, 1) leaves the image as it
            is.
        blue: how much lighter blue is than green in the deepest shadow, and red darker, as a
            logarithm (0.3 is a factor of 1.35); negative is yellowish, as shadows indoors are.
        shapes: number of shadows.
        size: radius of a shadow, as a share of the shorter side of the photo.
        penumbra: width of the edge in pixels, from near what casts the shadow to far from it.
        ambient: how much the attenuation varies inside, as a share of its logarithm.
        blob_probability: how often an outline is smooth instead of a polygon.
    """

    light: tuple[float, float] = parameter((0.1, 0.56), within=(0.01, 1))
    blue: tuple[float, float] = parameter((-0.2, 0.7), within=(-1, 1))
    shapes: tuple[int, int] = parameter((1, 3), within=(0, 32))
    size: tuple[float, float] = parameter((0.15, 0.6), within=(0.01, 4))
    penumbra: tuple[float, float] = parameter((1.5, 70.0), within=(1, 400))
    ambient: tuple[float, float] = parameter((0.0, 0.12), within=(0, 0.3))
    blob_probability: float = parameter(0.6, within=(0, 1))

    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        channels, height, width = shape
        count = integer(*self.shapes, generator)
        rng = np.random.default_rng(new_seed(generator))
        drawn = [self._shape(height, width, number > 0, rng) for number in range(count)]
        seen = [each for each in drawn if each is not None]
        log_light = math.log(log_uniform(*self.light, generator))
        blue, ambient = uniform(*self.blue, generator), uniform(*self.ambient, generator)
        # A light shadow has sun in it, and less of the sky's colour. As log x <= x - 1, no channel
        # gets brighter in shadow while |blue| <= 1.
        blue = blue * (1 - math.exp(log_light))
        colour = [log_light - blue, log_light, log_light + blue] if channels == 3 else [log_light]
        shapes = (
            np.stack([each[0] for each in seen]) if seen else np.zeros((0, height, width), "u1")
        )
        return {
            "count": len(seen),
            "shapes": torch.from_numpy(shapes),
            "slopes": torch.tensor([each[1] for each in seen]).reshape(-1, 3),
            "colour": torch.tensor([colour]),
            "ambient": ambient,
            "waves": draw_waves(max(PHOTO_SIDE, height) / 2, generator),
        }

    def apply(self, images: Tensor, draws: Draws) -> Degraded:
        field = smooth_fields(draws["waves"], *images.shape[-2:]).clamp_(-2, 2)[:, None]
        deep = field.mul_(per_image(draws["ambient"])).add_(1)
        # The share of the light that is left in full shadow, from the sky.
        sky = (per_image(draws["colour"]) * deep).exp_()
        # In the penumbra a part of the sun is still in sight.
        left = torch.lerp(sky.new_ones(()), sky, shades(draws)[:, None])
        light = to_linear(images).mul_(left)
        return Degraded(to_8_bit(to_srgb(light)))

    def _shape(
        self, height: int, width: int, anywhere: bool, rng: np.random.Generator
    ) -> tuple[np.ndarray, list[float]] | None:
        """One shadow, blurred, uint8 ``[height, width]``, and its slopes; None if out of sight.

        It crosses the picture, or the photo around that ``anywhere``.
        """
        sides = (width, height)
        margins = [max(PHOTO_SIDE - side, 0) / 2 * anywhere for side in sides]
        rim = [rng.uniform(-m, side + m) for m, side in zip(margins, sides, strict=True)]
        low, high = (math.log(pixels) for pixels in self.penumbra)
        near, far = sorted(math.exp(rng.uniform(low, high)) for _ in range(2))
        near = max(near, far / 4)  # blurring by the far width would round a sharper shape away
        outline = _outline(rng.uniform() < self.blob_probability, rng)
        outline *= max(PHOTO_SIDE, min(height, width)) * rng.uniform(*self.size)
        outline += rim - outline[rng.integers(len(outline))] * rng.uniform(0.8, 1)
        # From far to near across the picture in a random direction.
        turn, sharper = rng.uniform(0, 2 * math.pi), math.log(far / near)
        slopes = [0.5 * sharper, math.sin(turn) / 2.83 * sharper, math.cos(turn) / 2.83 * sharper]
        shape = _blurred(outline, height, width, far)
        return None if shape is None else (shape, slopes)
