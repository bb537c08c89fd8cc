"""Dead-leaves pictures: opaque shapes of all sizes that cover one another, like things in a photo.

Occlusion with radii of density r^-3 gives the scale invariance, the 1/f spectrum and the edges of
natural images (Matheron 1968; Lee, Mumford and Huang, "Occlusion Models for Natural Images",
IJCV 2001), and networks trained on it restore real photographs nearly as well as those trained on
photographs (Achddou, Gousseau and Ladjal, "Synthetic images as a regularity prior for image
restoration neural networks", SSVM 2021). Beyond plain discs, leaves here have texture, shading,
bent outlines and colours from a palette of each picture's own. Numpy alone, one picture a call.
"""

from __future__ import annotations

import colorsys
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array: TypeAlias = NDArray[np.float32]

# (centre, spread) of the hues of nature in turns: foliage, earth and skin, sky and water.
_HUES = ((0.27, 0.06), (0.08, 0.03), (0.59, 0.04))
_MOST_LEAVES = 2500


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
    """Wavy stripes (fabric, tiles, blinds), deviation about 1, ``[size, size]``."""
    turn, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(4), np.log(24)))
    y, x = np.mgrid[:size, :size].astype(np.float32)
    phase = 2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / period
    wave = np.sin(phase + rng.uniform(0, 1.5) * fractal(rng, size, 2.0))
    sharp = rng.uniform(0.5, 4)
    return np.asarray(np.tanh(sharp * wave) * 1.2, np.float32)


def _palette(rng: np.random.Generator) -> Array:
    """A picture's 4 to 8 main colours, ``[n, 3]`` in [0, 1]: mostly natural hues, few vivid."""
    colours = []
    grey = rng.random() < 0.08
    for _ in range(int(rng.integers(4, 9))):
        centre, spread = _HUES[int(rng.integers(len(_HUES)))]
        natural = rng.random() < 0.7
        hue = rng.normal(centre, spread) if natural else rng.random()
        saturation = 0.0 if grey else rng.beta(1.3, 2.6)
        colours.append(colorsys.hsv_to_rgb(hue % 1.0, saturation, rng.beta(1.1, 1.1)))
    return np.array(colours, np.float32)


def _colour(rng: np.random.Generator, palette: Array) -> Array:
    """A colour near one of the palette, ``[3]``: the same tint, another brightness."""
    colour = palette[int(rng.integers(len(palette)))]
    lightness = np.exp(rng.normal(0, 0.25))
    return np.asarray(colour * lightness + rng.normal(0, 0.025, 3), np.float32)


def _radii(rng: np.random.Generator, size: int) -> Array:
    """Radii in pixels, density r^-3 between a smallest one, drawn per picture, and size / 2."""
    least, most = np.exp(rng.uniform(np.log(0.9), np.log(12))), size / 2
    area = 2 * np.pi * np.log(most / least) / (least**-2 - most**-2)
    count = min(_MOST_LEAVES, int(rng.uniform(0.8, 2.5) * size**2 / area))
    chance = rng.random(count)
    return np.asarray((least**-2 + chance * (most**-2 - least**-2)) ** -0.5, np.float32)


def _coverage(rng: np.random.Generator, y: Array, x: Array, radius: float) -> Array:
    """How much of each pixel a random shape of this radius covers, in [0, 1]."""
    turn = rng.uniform(0, np.pi)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    kind, thin = rng.random(), rng.uniform(0.35, 1.0)
    if kind < 0.5:  # ellipse
        inside = radius * thin * (1 - np.hypot(u, v / thin) / radius)
    elif kind < 0.75:  # rectangle
        inside = radius * np.minimum(0.9 - np.abs(u) / radius, 0.9 * thin - np.abs(v) / radius)
    elif kind < 0.85:  # stick, blade, pole
        thin = max(0.7 / radius, rng.uniform(0.02, 0.15))
        inside = radius * np.minimum(1.4 - np.abs(u) / radius, thin - np.abs(v) / radius)
    else:  # triangle
        sides = [u * np.cos(a) + v * np.sin(a) for a in (0.0, 2.1, 4.2)]
        inside = 0.6 * radius - np.maximum.reduce(sides)
    soft = 1.0 if rng.random() < 0.8 else rng.uniform(1, 1 + 0.2 * radius)  # out of focus
    return np.asarray(np.clip(0.5 + inside / soft, 0, 1), np.float32)


def _texture(rng: np.random.Generator, pool: list[Array], ys: slice, xs: slice) -> Array:
    """A piece of one of the pool's textures as a brightness factor around 1."""
    strength = 0.5 * rng.beta(1, 2)
    return 1 + strength * pool[int(rng.integers(len(pool)))][ys, xs]


def _place(
    rng: np.random.Generator, canvas: Array, radius: float, palette: Array, pool: list[Array]
) -> None:
    """Lay one leaf on the canvas ``[S, S, 3]``, in place."""
    size = canvas.shape[0]
    cy, cx = rng.uniform(0, size, 2)
    reach = 1.5 * radius + 2
    ys = slice(max(0, int(cy - reach)), min(size, int(cy + reach) + 1))
    xs = slice(max(0, int(cx - reach)), min(size, int(cx + reach) + 1))
    y = np.arange(ys.start, ys.stop, dtype=np.float32)[:, None] - np.float32(cy)
    x = np.arange(xs.start, xs.stop, dtype=np.float32)[None, :] - np.float32(cx)
    cover = _coverage(rng, y, x, radius)[..., None]
    shade = np.ones_like(cover)
    if radius > 3:
        slope = rng.normal(0, 0.15, 2) / radius
        shade = (1 + slope[0] * y + slope[1] * x) * _texture(rng, pool, ys, xs)
        shade = shade[..., None].astype(np.float32)
    part = canvas[ys, xs]
    part += cover * (_colour(rng, palette) * shade - part)


def _bend(rng: np.random.Generator, canvas: Array) -> Array:
    """Shift pixels along a smooth random field, so that outlines are not those of a drawing."""
    size, strength = canvas.shape[0], rng.uniform(0, 5)
    shift = [strength * fractal(rng, size, rng.uniform(1.6, 2.4)) for _ in range(2)]
    place = np.mgrid[:size, :size].astype(np.float32) + np.stack(shift)
    channels = [
        ndimage.map_coordinates(canvas[..., c], place, order=1, mode="mirror") for c in range(3)
    ]
    return np.stack(channels, -1).astype(np.float32)


def _develop(rng: np.random.Generator, canvas: Array) -> Array:
    """Light, focus, exposure and tone of the camera; may saturate as photographs do."""
    light = np.exp(rng.uniform(0, 0.25) * fractal(rng, canvas.shape[0], 2.0))[..., None]
    blur = rng.uniform(0, 0.6) if rng.random() < 0.85 else rng.uniform(0.6, 3)
    canvas = ndimage.gaussian_filter(canvas.clip(0, 1.2) * light, (blur, blur, 0))
    exposed = canvas * np.exp(rng.normal(-0.25, 0.25))
    toned = exposed.clip(0, None) ** np.exp(rng.normal(0.05, 0.2)) * rng.normal(1, 0.04, 3)
    return np.asarray(toned + rng.uniform(0, 0.012) * rng.standard_normal(canvas.shape), np.float32)


def render(seed: int, index: int, size: int) -> NDArray[np.uint8]:
    """One picture, RGB ``[size, size, 3]`` uint8: a function of (seed, index, size) alone."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, index)))
    margin = 8
    work = size + 2 * margin
    pool = [
        fractal(rng, work, rng.uniform(0.3, 1.4), np.exp(rng.uniform(0, 2))) for _ in range(6)
    ] + [grating(rng, work)]
    palette = _palette(rng)
    ramp = np.linspace(0, 1, work, dtype=np.float32)[:, None, None]
    canvas = _colour(rng, palette) * ramp + _colour(rng, palette) * (1 - ramp)
    canvas = np.repeat(canvas, work, 1) * _texture(rng, pool, slice(None), slice(None))[..., None]
    canvas = canvas.astype(np.float32)
    for radius in _radii(rng, work):
        _place(rng, canvas, float(radius), palette, pool)
    picture = _develop(rng, _bend(rng, canvas))[margin:-margin, margin:-margin]
    return np.asarray((picture.clip(0, 1) * 255).round(), np.uint8)
