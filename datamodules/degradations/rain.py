"""Rain: layers of streaks from fine and far to long and near, with an optional veil.

As in Yang et al., "Deep Joint Rain Detection and Removal from a Single Image" (CVPR 2017, Eq. 5),
``O = a (B + sum_k S_k) + (1 - a) A``: layers of streaks, each of one direction, and the light A of
the veil. A layer is sparse noise convolved with a tapered line; a near layer has longer, wider,
brighter and fewer streaks than a far one (Garg and Nayar, "Vision and Rain", IJCV 2007).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datamodules.degradations.base import BatchDegradation, Degraded, parameter, to_8_bit
from datamodules.degradations.convolution import convolve_torus, fast_size
from datamodules.degradations.packing import Draws, Shape, owners, per_image
from datamodules.randomness import integer, uniform


def _half(length: float) -> int:
    """Pixels beside the middle of a streak whose length and width make ``length`` together."""
    return math.ceil(length / 2) + 1


def _profiles(
    angle: np.ndarray,
    length: np.ndarray,
    width: np.ndarray,
    taper: np.ndarray,
    tail: np.ndarray,
    gain: np.ndarray,
) -> list[np.ndarray]:
    """What :func:`_streaks` needs to know of the streaks of K layers, ten numbers for each.

    Args:
        angle: ``[K]`` radians from the vertical.
        length, width: ``[K]`` pixels; below one pixel of width a streak is fainter, not narrower.
        taper: ``[K]`` in [0, 1], 0 for hard ends, 1 for a streak that fades from its middle.
        tail: ``[K]`` in [0, 1], how much one end is darker than the other.
        gain: ``[K]`` from 1 for a soft profile to 3 for a flat one.
    """
    middle = np.full_like(length, _half((length + width).max(initial=0)))
    sine, cosine = np.sin(angle), np.cos(angle)
    along, across = (cosine / length, sine / length), (gain * sine, -gain * cosine)
    edge, flat = gain * (width + 1) / 2, gain * width.clip(max=1)
    fade = 1 / (2 + taper * length)
    return [middle, *along, *across, edge, flat, (length + 1) * fade, 2 * length * fade, tail]


def _streaks(profiles: Tensor, size: int) -> Tensor:
    """One streak a layer, drawn by its distance functions: ``[K, size, size]`` in [0, 1].

    It lies in the corner of its square, which has room for the longest streak.
    """
    numbers = profiles[..., None, None].unbind(1)
    middle, down, right, down_across, right_across, edge, flat, ends, slope, tail = numbers
    line = torch.arange(size, dtype=torch.float32, device=profiles.device)
    y, x = line[:, None] - middle, line - middle
    along = y * down + x * right  # in lengths, from -1/2 to 1/2
    across = (y * down_across + x * right_across).abs_()
    bright = 1 - (along + 0.5).clamp_(0, 1).mul_(tail)
    streak = (edge - across).clamp_(min=0).minimum(flat)
    streak *= (ends - along.abs_().mul_(slope)).clamp_(0, 1)
    return streak.mul_(bright).clamp_(max=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rain(BatchDegradation):
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

    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        screen = float(uniform(0, 1, generator) < self.screen_probability)
        veil, light = uniform(*self.veil, generator), uniform(0.6, 0.95, generator)
        return {"screen": screen, "veil": veil, "light": light} | self.fall(generator, *shape[1:])

    def fall(self, generator: torch.Generator, height: int, width: int) -> Draws:
        """The streaks alone, for :meth:`render`."""
        severity = uniform(*self.severity, generator)
        low, high = self.layers
        count = round(low + (high - low) * severity)
        count = min(high, max(low, count + integer(-1, 1, generator)))
        chance = torch.rand(9, count, generator=generator).numpy()
        near = (np.arange(count, dtype=np.float32) + chance[0]) / max(count, 1)  # 0 is far, 1 near

        def drawn(bounds: tuple[float, float], share: np.ndarray) -> np.ndarray:
            return bounds[0] + (bounds[1] - bounds[0]) * share

        length = drawn(self.length, 0.5 * near + 0.5 * chance[1])
        thick = drawn(self.width, near * chance[2])
        density = drawn(self.density, severity * (0.25 + 0.75 * chance[3]) * (1 - 0.4 * near))
        brightness = drawn(self.brightness, severity * (0.2 + 0.4 * near + 0.4 * chance[4]))
        turn = uniform(*self.spread, generator) * (2 * chance[5] - 1)
        # Two draws: directions near the middle of the range are the usual ones.
        main = (uniform(*self.angle, generator) + uniform(*self.angle, generator)) / 2
        angle, tail, gain = np.deg2rad(main + turn), 0.5 * chance[7], 1 + 2 * chance[8]
        profiles = _profiles(angle, length, thick, chance[6], tail, gain)
        # Streaks of area A at a rate p a pixel leave exp(-p A) of the layer bare (Poisson).
        rate = -np.log1p(-density) / (length * thick.clip(min=1))
        drops = _drops(rate, self._torus(height, width), generator)
        return {
            "count": count,
            "profiles": torch.from_numpy(np.stack(profiles, axis=1)),
            # Its shape alone tells, without a wait, how large the streaks of a batch are.
            "square": torch.empty(0, 2 * _half((length + thick).max(initial=0)) + 1),
            "brightness": torch.from_numpy(brightness),
        } | drops

    def _torus(self, height: int, width: int) -> tuple[int, int]:
        """The sky is a torus just large enough for an image and for one streak: a streak that
        leaves it on one side comes in on the other, which no crop of random rain can show.
        """
        streak = 2 * _half(self.length[1] + self.width[1]) + 1
        return fast_size(max(height, streak), max(width, streak))

    def render(self, draws: Draws, batch: int, height: int, width: int) -> Tensor:
        """The light of the streaks alone: float32 ``[batch, height, width]``, at least 0."""
        profiles, drops, torus = draws["profiles"], draws["drops"], self._torus(height, width)
        light = drops.new_zeros(batch, height, width)
        if not len(profiles):  # the FFT takes no empty batch
            return light
        sky = drops.new_zeros(len(profiles), torus[0] * torus[1])
        sky.index_put_((owners(draws["drop_counts"], total=len(drops)), draws["spots"]), drops)
        streaks = _streaks(profiles, draws["square"].shape[1])
        sheets = convolve_torus(sky.view(-1, *torus), streaks, torus)
        # Overlapping streaks of one layer are one sheet of water, not twice as bright.
        sheets = sheets[:, :height, :width].clamp_(0, 1).mul_(draws["brightness"][:, None, None])
        return light.index_add_(0, owners(draws["count"], total=len(profiles)), sheets)

    def apply(self, images: Tensor, draws: Draws) -> Degraded:
        batch, _, height, width = images.shape
        rain = self.render(draws, batch, height, width)[:, None].to(images.dtype)
        wet = torch.addcmul(rain, images, 1 - per_image(draws["screen"]) * rain).clamp_(max=1)
        veil, light = per_image(draws["veil"]), per_image(draws["light"])
        return Degraded(to_8_bit(wet.mul_(1 - veil).add_(veil * light)))


def _drops(rate: np.ndarray, torus: tuple[int, int], generator: torch.Generator) -> Draws:
    """Drops at a ``rate`` [K] a pixel: how many a layer, where on its flat torus, how bright."""
    field = torch.rand(len(rate), *torus, generator=generator).flatten(1).numpy()
    vary = torch.rand(len(rate), 1, 1, generator=generator).flatten().numpy()
    found = np.flatnonzero(field < rate[:, None])
    layer, spot = np.divmod(found, torus[0] * torus[1])
    # A drop where u < p; u / p is again uniform there and becomes the drop's own brightness.
    drops = 1 - vary[layer] * field[layer, spot] / rate[layer]
    return {
        "drop_counts": torch.from_numpy(np.bincount(layer, minlength=len(rate))),
        "spots": torch.from_numpy(spot),
        "drops": torch.from_numpy(drops),
    }
