"""Textures and colours of dead-leaves pictures: noise of 1/f^e spectra, stripes, fur, palettes."""

from __future__ import annotations

import colorsys
import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter, map_coordinates

from datamodules.leaves.look import LeafLook, Stream
from mrdiff.photo import channels

Array: TypeAlias = NDArray[np.float32]

# (centre, spread, share) of the hues of nature in turns: earth, wood and skin; foliage; sky and
# water. Chosen so that the means and spreads of R - G and B - Y are about those of photos.
_HUES = ((0.09, 0.035, 0.5), (0.23, 0.06, 0.25), (0.59, 0.05, 0.25))
_TEXTURES = 7
LUMA = np.array(channels.LUMA, np.float32)


def turned(y: Array, x: Array, turn: float) -> tuple[Array, Array]:
    """Coordinates along a direction, in radians from the x axis, and across it."""
    cos, sin = math.cos(turn), math.sin(turn)  # NumPy's would be float64 and spread
    return x * cos + y * sin, y * cos - x * sin


def fractal(rng: np.random.Generator, size: int, exponent: float, stretch: float = 1.0) -> Array:
    """Gaussian noise of amplitude spectrum 1/f^exponent, mean 0, deviation 1, ``[size, size]``.

    ``stretch`` above 1 draws it out along a random direction (grain, water, grass).
    """
    fy = fft.fftfreq(size).astype(np.float32)[:, None]
    fx = fft.rfftfreq(size).astype(np.float32)
    along, across = turned(fy, fx, rng.uniform(0, np.pi))
    power = (stretch * along) ** 2 + across**2
    power[0, 0] = np.inf  # no mean
    white = fft.rfft2(rng.random((size, size), np.float32))  # half the time of normal numbers
    field: Array = fft.irfft2(white * power ** (-exponent / 2), s=(size, size))
    return field / max(field.std(), np.float32(1e-12))


def grating(rng: np.random.Generator, size: int) -> Array:
    """Wavy stripes (fabric, blinds, furrows), deviation about 1, ``[size, size]``."""
    turn, period = rng.uniform(0, np.pi), math.exp(rng.uniform(math.log(3), math.log(24)))
    y, x = np.ogrid[:size, :size]
    along, _ = turned(y.astype(np.float32), x.astype(np.float32), turn)
    wave = np.sin(2 * math.pi / period * along + rng.uniform(0, 1.5) * fractal(rng, size, 2.0))
    sharp = rng.uniform(0.5, 4)
    return np.asarray(1.2 * np.tanh(sharp * wave), np.float32)


def fur(rng: np.random.Generator, size: int) -> Array:
    """Strands side by side along a smooth field of directions (hair, grass), ``[size, size]``.

    White noise averaged along the lines of the field (line integral convolution, Cabral and Leedom,
    SIGGRAPH 1993), mean 0 and deviation 1.
    """
    strands = gaussian_filter(rng.random((size, size), np.float32), rng.uniform(0.4, 0.7))
    turn = rng.uniform(0, 2 * np.pi) + rng.uniform(0.1, 0.8) * fractal(rng, size, 2.2)
    place = np.mgrid[:size, :size].astype(np.float32)
    step = rng.uniform(0.7, 1.2) * np.stack([np.sin(turn), np.cos(turn)])
    for _ in range(4):  # each sum along a line is of two sums half as long: 2, 4, 8, 16 values
        ahead = place + step
        strands += map_coordinates(strands, ahead, order=1, mode="grid-wrap")
        row, column = ahead.round().astype(int)
        step = step + step.reshape(2, -1).take(row * size + column, 1, mode="wrap")
    strands -= strands.mean()
    return strands / strands.std()


def _patchy(rng: np.random.Generator, size: int, exponents: tuple[float, float]) -> Array:
    """Fractal noise whose contrast varies from place to place, as no Gaussian's does."""
    fine = fractal(rng, size, rng.uniform(*exponents), math.exp(rng.uniform(0, 2)))
    field = fine * np.exp(rng.uniform(0, 0.8) * np.roll(fine, size // 2, 0))
    field = (field - field.mean()) / max(float(field.std()), 1e-12)
    return 3 * np.tanh(field / 3)  # no specks of black and white


def texture_pool(look: LeafLook, stream: Stream, size: int) -> list[Array]:
    """The textures of one picture, mean about 0 and deviation about 1; none if there is none."""
    if not look.texture:
        return []
    striped = stream("stripes").random(_TEXTURES) < look.stripes
    hairy = stream("fur").random(_TEXTURES) < look.fur
    pool = []
    for i in range(_TEXTURES):
        rng = stream(f"texture {i}")  # of its own, so that one more striped changes no other
        if striped[i]:
            pool.append(grating(rng, size))
        elif hairy[i]:
            pool.append(fur(rng, size))
        else:
            pool.append(_patchy(rng, size, look.exponents))
    return pool


class Palette:
    """The 4 to 8 main colours of a picture, and draws of colours near them."""

    def __init__(self, look: LeafLook, stream: Stream) -> None:
        rng = stream("palette")
        self.colours = rng.random((int(rng.integers(4, 9)), 3)).astype(np.float32)
        natural = stream("nature")
        shares = natural.dirichlet(1.5 * np.array([share for *_, share in _HUES]))
        grey = natural.random() < 0.08
        for i in range(len(self.colours)):
            if natural.random() < look.nature:
                self.colours[i] = _natural_colour(natural, shares, grey=grey)

    def near(self, rng: np.random.Generator, count: int) -> Array:
        """Colours near those of the palette, ``[count, 3, 1, 1]``: same tints, other brightness."""
        colours = self.colours[rng.integers(len(self.colours), size=count)]
        lightness = np.exp(rng.normal(0, 0.25, (count, 1)))
        near = colours * lightness + rng.normal(0, 0.025, (count, 3))
        return np.asarray(near[..., None, None], np.float32)


def _natural_colour(
    rng: np.random.Generator, shares: NDArray[np.float64], *, grey: bool
) -> tuple[float, float, float]:
    centre, spread, _ = _HUES[int(rng.choice(len(_HUES), p=shares))]
    saturation = 0.0 if grey else rng.beta(1.3, 2.6)
    return colorsys.hsv_to_rgb(rng.normal(centre, spread) % 1.0, saturation, rng.beta(0.9, 1.0))
