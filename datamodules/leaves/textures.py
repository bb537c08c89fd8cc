"""Textures and colours of dead-leaves pictures: noise of 1/f^e spectra, stripes, fur, palettes."""

from __future__ import annotations

import colorsys
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from datamodules.leaves.look import LeafLook, Stream
from mrdiff.photo import channels

Array: TypeAlias = NDArray[np.float32]

# (centre, spread, share) of the hues of nature in turns: earth, wood and skin; foliage; sky and
# water. Chosen so that the means and spreads of R - G and B - Y are about those of photos.
_HUES = ((0.09, 0.035, 0.5), (0.23, 0.06, 0.25), (0.59, 0.05, 0.25))
_TEXTURES = 7
LUMA = np.array(channels.LUMA, np.float32)


def fractal(rng: np.random.Generator, size: int, exponent: float, stretch: float = 1.0) -> Array:
    """Gaussian noise of amplitude spectrum 1/f^exponent, mean 0, deviation 1, ``[size, size]``.

    ``stretch`` above 1 draws it out along a random direction (grain, water, grass).
    """
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    turn = rng.uniform(0, np.pi)
    along, across = fx * np.cos(turn) + fy * np.sin(turn), fy * np.cos(turn) - fx * np.sin(turn)
    frequency = np.hypot(along * stretch, across)
    frequency[0, 0] = 1.0
    white = rng.standard_normal(frequency.shape) + 1j * rng.standard_normal(frequency.shape)
    spectrum = white * frequency**-exponent
    spectrum[0, 0] = 0.0
    field: Array = np.fft.irfft2(spectrum, s=(size, size)).astype(np.float32)
    return field / np.float32(max(float(field.std()), 1e-12))


def grating(rng: np.random.Generator, size: int) -> Array:
    """Wavy stripes (fabric, blinds, furrows), deviation about 1, ``[size, size]``."""
    turn, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(3), np.log(24)))
    y, x = np.mgrid[:size, :size].astype(np.float32)
    phase = 2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / period
    wave = np.sin(phase + rng.uniform(0, 1.5) * fractal(rng, size, 2.0))
    sharp = rng.uniform(0.5, 4)
    return np.asarray(np.tanh(sharp * wave) * 1.2, np.float32)


def fur(rng: np.random.Generator, size: int) -> Array:
    """Strands side by side along a smooth field of directions (hair, grass), ``[size, size]``.

    White noise averaged along the lines of the field (line integral convolution, Cabral and Leedom,
    SIGGRAPH 1993), mean 0 and deviation 1.
    """
    noise = gaussian_filter(rng.standard_normal((size, size)), rng.uniform(0.4, 0.9))
    turn = rng.uniform(0, 2 * np.pi) + rng.uniform(0.1, 0.8) * fractal(rng, size, 2.2)
    step = np.stack([np.sin(turn), np.cos(turn)])
    place = np.mgrid[:size, :size].astype(np.float32)
    strands = noise.copy()
    for direction in (1, -1):
        along = place.copy()
        for _ in range(int(rng.integers(3, 10))):
            near = along.round().astype(int) % size
            along += direction * step[:, near[0], near[1]]
            strands += map_coordinates(noise, along, order=1, mode="grid-wrap")
    return np.asarray((strands - strands.mean()) / strands.std(), np.float32)


def _patchy(rng: np.random.Generator, size: int, exponents: tuple[float, float]) -> Array:
    """Fractal noise whose contrast varies from place to place, as no Gaussian's does."""
    fine = fractal(rng, size, rng.uniform(*exponents), np.exp(rng.uniform(0, 2)))
    field = fine * np.exp(rng.uniform(0, 0.8) * np.roll(fine, size // 2, 0))
    field = (field - field.mean()) / max(float(field.std()), 1e-12)
    return np.asarray(3 * np.tanh(field / 3), np.float32)  # no specks of black and white


def texture_pool(look: LeafLook, stream: Stream, size: int) -> list[Array]:
    """The textures of one picture, mean about 0 and deviation about 1; none if there is none."""
    if not look.texture:
        return []
    rng, stripes, hair = stream("texture pool"), stream("stripes"), stream("fur")
    pool = [_patchy(rng, size, look.exponents) for _ in range(_TEXTURES)]
    hairy = hair.random(_TEXTURES) < look.fur
    pool = [fur(hair, size) if yes else pool[i] for i, yes in enumerate(hairy)]
    striped = stripes.random(_TEXTURES) < look.stripes
    return [grating(stripes, size) if yes else pool[i] for i, yes in enumerate(striped)]


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
        """Colours near those of the palette, ``[count, 3]``: the same tints, other brightness."""
        colours = self.colours[rng.integers(len(self.colours), size=count)]
        lightness = np.exp(rng.normal(0, 0.25, (count, 1)))
        return np.asarray(colours * lightness + rng.normal(0, 0.025, (count, 3)), np.float32)


def _natural_colour(
    rng: np.random.Generator, shares: NDArray[np.float64], *, grey: bool
) -> tuple[float, float, float]:
    centre, spread, _ = _HUES[int(rng.choice(len(_HUES), p=shares))]
    saturation = 0.0 if grey else rng.beta(1.3, 2.6)
    return colorsys.hsv_to_rgb(rng.normal(centre, spread) % 1.0, saturation, rng.beta(0.9, 1.0))
