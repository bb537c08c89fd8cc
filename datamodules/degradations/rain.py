"""Rain: layers of streaks from fine and far to long and near, with an optional veil.

As in Yang et al., "Deep Joint Rain Detection and Removal from a Single Image" (CVPR 2017, Eq. 5),
``O = a (B + sum_k S_k) + (1 - a) A``: layers of streaks, each of one direction, and the light A of
the veil. A layer is sparse noise convolved with a tapered line; a near layer has longer, wider,
brighter and fewer streaks than a far one (Garg and Nayar, "Vision and Rain", IJCV 2007).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.degradations.base import Degradation, parameter, to_8_bit
from datamodules.degradations.convolution import convolve_torus, fast_size
from datamodules.randomness import integer, uniform


def _streaks(angle: Tensor, length: Tensor, width: Tensor, taper: Tensor, tail: Tensor) -> Tensor:
    """One streak a layer, drawn by its distance functions: ``[K, S, S]`` in [0, 1], S odd.

    Args:
        angle: ``[K]`` radians from the vertical.
        length, width: ``[K]`` pixels; below one pixel of width a streak is fainter, not narrower.
        taper: ``[K]`` in [0, 1], 0 for hard ends, 1 for a streak that fades from its middle.
        tail: ``[K]`` in [0, 1], how much one end is darker than the other.
    """
    half = math.ceil(float((length + width).max()) / 2) + 1
    line = torch.arange(-half, half + 1, dtype=torch.float32)
    y, x = line[None, :, None], line[None, None, :]
    sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
    length, width = length[:, None, None], width[:, None, None]
    taper, tail = taper[:, None, None], tail[:, None, None]
    along, across = x * sine + y * cosine, x * cosine - y * sine
    edge = ((width + 1) / 2 - across.abs()).clamp(min=0).minimum(width.clamp(max=1))
    ends = ((length / 2 - along.abs() + 0.5) / (1 + taper * length / 2)).clamp(0, 1)
    return edge * ends * (1 - tail * (0.5 + along / length).clamp(0, 1))


@dataclass(frozen=True, kw_only=True, eq=False)
class Rain(Degradation):
    """Streaks of rain, from the lightest drizzle to the heavy rain of the Rain100H benchmark.

    Every image draws one severity; number of layers, density and brightness follow it up their
    ranges, so that light rain is sparse and faint and heavy rain is dense and bright at once.

    Args:
        severity: where in [0, 1] an image lies between the lightest and the heaviest rain.
        layers: number of layers.
        angle: main direction in degrees from the vertical.
        spread: how far in degrees a layer turns from the main direction.
        length, width: of a streak in pixels, far to near.
        density: share of the image that one layer covers.
        brightness: what a streak adds to black, in image units; 0 leaves the image as it is.
        veil: share ``1 - a`` of the veil that accumulates in the distance; (0, 0) is none.
        screen_probability: how often a streak covers what is behind it, ``x + s (1 - x)``,
            instead of adding its light to it, ``x + s``.
    """

    severity: tuple[float, float] = parameter((0.1, 1.0), within=(0, 1))
    layers: tuple[int, int] = parameter((1, 5), within=(0, 32))
    angle: tuple[float, float] = parameter((-35.0, 35.0), within=(-90, 90))
    spread: tuple[float, float] = parameter((0.0, 20.0), within=(0, 90))
    length: tuple[float, float] = parameter((8.0, 70.0), within=(1, 512))
    width: tuple[float, float] = parameter((0.7, 3.0), within=(0.1, 64))
    density: tuple[float, float] = parameter((0.05, 0.65), within=(0, 0.95))
    brightness: tuple[float, float] = parameter((0.15, 0.55), within=(0, 1))
    veil: tuple[float, float] = parameter((0.0, 0.0), within=(0, 1))
    screen_probability: float = parameter(0.2, within=(0, 1))

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        screen = uniform(0, 1, generator) < self.screen_probability
        veil, light = uniform(*self.veil, generator), uniform(0.6, 0.95, generator)
        rain = self.render(image.shape[-2], image.shape[-1], generator).to(image.dtype)
        wet = image + rain * (1 - image) if screen else image + rain
        return to_8_bit((1 - veil) * wet.clamp(max=1) + veil * light)

    def render(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        """The light of the streaks alone: float32 ``[height, width]``, at least 0."""
        severity = uniform(*self.severity, generator)
        low, high = self.layers
        count = round(low + (high - low) * severity)
        count = min(high, max(low, count + integer(-1, 1, generator)))
        if count == 0:
            return torch.zeros(height, width)
        mask, brightness = self._layers(count, severity, height, width, generator)
        return (mask * brightness[:, None, None]).sum(0)

    def _layers(
        self, count: int, severity: float, height: int, width: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Coverage ``[K, H, W]`` in [0, 1] and brightness ``[K]`` of K layers."""
        chance = torch.rand(9, count, generator=generator)
        near = (torch.arange(count) + chance[0]) / count  # 0 is far, 1 is near

        def drawn(bounds: tuple[float, float], share: Tensor) -> Tensor:
            return bounds[0] + (bounds[1] - bounds[0]) * share

        length = drawn(self.length, 0.5 * near + 0.5 * chance[1])
        thick = drawn(self.width, near * chance[2])
        density = drawn(self.density, severity * (0.25 + 0.75 * chance[3]) * (1 - 0.4 * near))
        brightness = drawn(self.brightness, severity * (0.2 + 0.4 * near + 0.4 * chance[4]))
        turn = uniform(*self.spread, generator) * (2 * chance[5] - 1)
        # Two draws: directions near the middle of the range are the usual ones.
        main = (uniform(*self.angle, generator) + uniform(*self.angle, generator)) / 2
        angle = torch.deg2rad(main + turn)
        streak = _streaks(angle, length, thick, taper=chance[6], tail=0.5 * chance[7])
        streak = (streak * (1 + 2 * chance[8])[:, None, None]).clamp(max=1)  # from soft to flat
        # Streaks of area A at a rate p a pixel leave exp(-p A) of the layer bare (Poisson).
        rate = -torch.log1p(-density) / (length * thick.clamp(min=1))
        return self._scatter(streak, rate, height, width, generator), brightness

    def _scatter(
        self, streak: Tensor, rate: Tensor, height: int, width: int, generator: torch.Generator
    ) -> Tensor:
        """Put ``streak`` [K, S, S] at random points, ``rate`` [K] a pixel; [K, H, W] in [0, 1]."""
        count, size = streak.shape[0], streak.shape[-1]
        # The sky is a torus just large enough for the image and for one streak: a streak that
        # leaves it on one side comes in on the other, which no crop of random rain can show.
        shape = fast_size(max(height, size), max(width, size))
        drops = torch.rand(count, *shape, generator=generator)
        rate = rate[:, None, None]
        # A drop where u < p; u / p is again uniform there and becomes the drop's own brightness.
        vary = torch.rand(count, 1, 1, generator=generator)
        drops = torch.where(drops < rate, 1 - vary * drops / rate.clamp(min=1e-9), 0.0)
        layer = convolve_torus(drops, streak, shape)[:, :height, :width]
        # Overlapping streaks of one layer are one sheet of water, not twice as bright.
        return layer.clamp(0, 1) * (layer > 1e-4)
