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
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from datamodules.degradations.base import Degradation, parameter, to_8_bit
from datamodules.degradations.fields import PHOTO_SIDE, smooth_field
from datamodules.randomness import integer, uniform


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
    x, y = radius * np.cos(angle) * math.sqrt(long), radius * np.sin(angle) / math.sqrt(long)
    turn = rng.uniform(0, 2 * math.pi)
    turned = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
    return np.stack(turned, axis=1)


def soft_edge(shape: Tensor, gain: Tensor) -> Tensor:
    """Narrow the blurred edge of ``shape`` [H, W] in [0, 1] by the factor ``gain`` >= 1 [H, W].

    The odds ``p : 1 - p`` grow about exponentially across a blurred edge, so their power is a
    narrower edge in the same place, and what was monotone stays so.
    """
    inside, outside = shape**gain, (1 - shape) ** gain
    return inside / (inside + outside)


@dataclass(frozen=True, kw_only=True, eq=False)
class Shadow(Degradation):
    """One shadow or a few of one sun, with soft edges and a bluish inside.

    Pictures smaller than 400 pixels count as pieces of a photo: shadows keep their size in
    pixels, and mostly cross the edges of the picture.

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

    light: tuple[float, float] = parameter((0.12, 0.5), within=(0.01, 1))
    blue: tuple[float, float] = parameter((-0.12, 0.38), within=(-1, 1))
    shapes: tuple[int, int] = parameter((1, 3), within=(0, 32))
    size: tuple[float, float] = parameter((0.15, 0.6), within=(0.01, 4))
    penumbra: tuple[float, float] = parameter((2.0, 50.0), within=(1, 400))
    ambient: tuple[float, float] = parameter((0.0, 0.12), within=(0, 0.3))
    blob_probability: float = parameter(0.6, within=(0, 1))

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        shade = self.mask(image.shape[-2], image.shape[-1], generator)
        sky = self._sky(image, generator)
        # In the penumbra a part of the sun is still in sight.
        left = (1 - shade * (1 - sky)).to(image.dtype)
        light = rgb_to_linear_rgb(image.expand(3, -1, -1)) * left
        return to_8_bit(linear_rgb_to_rgb(light)[: len(image)])

    def mask(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        """How much of the sun is hidden: float32 ``[height, width]`` in [0, 1]."""
        count = integer(*self.shapes, generator)
        seed = int(torch.randint(2**62, (), generator=generator))
        rng = np.random.default_rng(seed)
        shade = torch.zeros(height, width)
        for number in range(count):
            # The first shadow crosses the picture, the others are anywhere in the photo around.
            picture = np.array([width, height])
            margin = np.maximum(PHOTO_SIDE - picture, 0) / 2 * (number > 0)
            rim = rng.uniform(-margin, picture + margin)
            # One sun: where two shadows meet it is no darker than in either.
            shade = shade.maximum(self._shape(height, width, rim, rng))
        return shade

    def _sky(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """The share of light left in full shadow, float32 ``[C, H, W]`` in [0, 1]."""
        channels, height, width = image.shape
        dark, bright = (math.log(share) for share in self.light)
        log_light = uniform(dark, bright, generator)
        blue, ambient = uniform(*self.blue, generator), uniform(*self.ambient, generator)
        # A light shadow has sun in it, and less of the sky's colour. As log x <= x - 1, no channel
        # gets brighter in shadow while |blue| <= 1.
        blue = blue * (1 - math.exp(log_light))
        colour = [log_light - blue, log_light, log_light + blue] if channels == 3 else [log_light]
        span = max(PHOTO_SIDE, height) / 2
        field = smooth_field(height, width, span=span, generator=generator).clamp(-2, 2)
        return torch.exp(torch.tensor(colour)[:, None, None] * (1 + ambient * field))

    def _shape(self, height: int, width: int, rim: np.ndarray, rng: np.random.Generator) -> Tensor:
        """One shadow with ``rim`` [2] close to its edge: float32 ``[height, width]`` in [0, 1]."""
        photo = max(PHOTO_SIDE, min(height, width))
        low, high = (math.log(pixels) for pixels in self.penumbra)
        near, far = sorted(math.exp(drawn) for drawn in rng.uniform(low, high, 2))
        near = max(near, far / 4)  # blurring by the far width would round a sharper shape away
        outline = _outline(rng.uniform() < self.blob_probability, rng)
        outline = outline * photo * rng.uniform(*self.size)
        middle = rim - outline[rng.integers(len(outline))] * rng.uniform(0.8, 1)
        pad = math.ceil(far / 2)  # what is beyond the picture is blurred into it
        canvas = Image.new("L", (width + 2 * pad, height + 2 * pad))
        corners = [tuple(corner) for corner in outline + middle + pad]
        ImageDraw.Draw(canvas).polygon(corners, fill=255)
        # Four standard deviations hold 95 % of the edge.
        blurred = canvas.filter(ImageFilter.GaussianBlur(far / 4))
        shape = torch.from_numpy(np.array(blurred)[pad : pad + height, pad : pad + width])
        return soft_edge(shape.float() / 255, self._gain(height, width, far / near, rng))

    def _gain(self, height: int, width: int, top: float, rng: np.random.Generator) -> Tensor:
        """From 1 to ``top`` across the picture in a random direction, ``[height, width]``."""
        turn = rng.uniform(0, 2 * math.pi)
        y = torch.linspace(-1, 1, height)[:, None] * math.sin(turn)
        x = torch.linspace(-1, 1, width) * math.cos(turn)
        return top ** ((y + x) / 2.83 + 0.5)
