"""Light and camera of dead-leaves pictures: shadows, highlights, focus, tone, sensor."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from datamodules.leaves.look import LeafLook, Stream
from datamodules.leaves.textures import LUMA, Array, fractal, turned

# (mean, deviation) of the targets for a picture's mean luminance, its deviation and its black
# point, in [0, 1]. Chosen so that pictures come out as the central 288 pixels of the 381 train and
# test photos of BSDS500 (Arbelaez et al., TPAMI 2011) that were measured: mean 0.44 +- 0.10,
# deviation 0.20 +- 0.055, darkest percent 0.11 +- 0.07, median of B - Y -0.08. The targets for
# contrast and black lie beyond that because the curve takes from both.
_MEAN, _CONTRAST, _BLACK = (0.43, 0.1), (0.25, 0.06), (0.04, 0.035)
_WARM = np.array([0.025, 0.0, -0.09])[:, None, None]
_BLUISH = np.array([0.95, 1.0, 1.1], np.float32)[:, None, None]


def shadows(stream: Stream, canvas: Array) -> Array:
    """Some of the picture in the soft shadow of something outside it, bluish as under a sky."""
    rng, size = stream("shadows"), canvas.shape[-1]
    field = fractal(rng, size, rng.uniform(1.4, 2.6))
    edge = field - np.quantile(field, rng.uniform(0.3, 0.9))
    soft = rng.uniform(0.05, 0.6)
    dark = rng.uniform(0.25, 0.75) * _BLUISH
    return canvas * (1 - np.clip(0.5 + edge / soft, 0, 1) * (1 - dark))


def highlights(stream: Stream, canvas: Array) -> Array:
    """Small glints brighter than white, in groups, as on water, metal, leaves and eyes."""
    rng, size = stream("highlights"), canvas.shape[-1]
    canvas = canvas.copy()
    centre, spread = rng.uniform(0, size, 2), rng.uniform(0.05, 0.6) * size
    turn, long = rng.uniform(0, np.pi), rng.uniform(1, 2.5)
    for _ in range(int(rng.integers(2, 40))):
        cy, cx = centre + rng.normal(0, spread, 2)
        radius = np.exp(rng.uniform(np.log(0.5), np.log(3)))
        reach = int(3 * radius * long) + 1
        if not (reach < cy < size - reach and reach < cx < size - reach):
            continue
        ys, xs = (slice(int(c) - reach, int(c) + reach + 1) for c in (cy, cx))
        y, x = np.ogrid[ys, xs]
        u, v = turned(y - cy, x - cx, turn)
        glint = np.exp(-0.5 * ((u / long) ** 2 + v**2) / radius**2)
        canvas[:, ys, xs] += rng.uniform(0.3, 1.2) * glint
    return canvas


def _luma(canvas: Array) -> Array:
    return np.tensordot(LUMA, canvas, 1)


def _exposed(look: LeafLook, rng: np.random.Generator, canvas: Array) -> Array:
    """Brightness, contrast and tint as a photographer would choose them; blacks are not black."""
    luma = _luma(canvas)
    was, deviation = float(luma.mean()), float(luma.std())
    mean, contrast, black = (rng.normal(*of) for of in (_MEAN, _CONTRAST, _BLACK))
    gain = float(np.clip(max(contrast, 0.05) / max(deviation, 1e-3), 0.5, 2.0)) ** look.tone
    canvas = was + look.tone * (mean - was) + gain * (canvas - was)
    tint = 1 + look.tone * (rng.normal(0, 0.04, (3, 1, 1)) + _WARM)
    toe = look.tone * float(np.clip(black, 0.02, 0.1))
    shoulder = look.tone * float(np.clip(rng.normal(0.03, 0.06), 0, 0.2))
    canvas = _softly_above(1 - _softly_above(1 - canvas, shoulder), toe)
    return canvas * tint.astype(np.float32)


def _softly_above(values: Array, least: float) -> Array:
    """Values raised to ``least`` without a corner: a film's curve, not a sensor's clipping."""
    over = values - least
    return least + 0.5 * (over + np.sqrt(over * over + least * least))


def developed(look: LeafLook, stream: Stream, canvas: Array) -> Array:
    """The canvas as a camera sees it; may saturate as photographs do."""
    size = canvas.shape[-1]
    if look.light:
        rng = stream("light")
        canvas = canvas * np.exp(rng.uniform(0, look.light) * fractal(rng, size, 2.0))
    if look.tone:
        canvas = _exposed(look, stream("tone"), canvas)
    if look.blur:
        rng = stream("blur")
        far = rng.random() < look.blur
        sigma = rng.uniform(0.6, 2.5) if far else rng.uniform(0, 0.45)
        canvas = ndimage.gaussian_filter(canvas.clip(0, 1.3), (0, sigma, sigma))
    if look.sharpening:
        rng = stream("sharpening")
        wide = rng.uniform(0.6, 1.2)
        blurred = ndimage.gaussian_filter(canvas, (0, wide, wide))
        canvas = canvas + rng.uniform(0, look.sharpening) * (canvas - blurred)
    if look.grain:
        rng = stream("grain")
        noise = rng.standard_normal(canvas.shape, np.float32)
        canvas = canvas + rng.uniform(0, look.grain) * noise
    if look.chroma:
        canvas = _softly_coloured(canvas, stream("chroma").uniform(0, look.chroma))
    return canvas


def _softly_coloured(canvas: Array, sigma: float) -> Array:
    """Colour less sharp than brightness: demosaicing, noise reduction and 4:2:0 of cameras."""
    luma = _luma(canvas)
    return luma + ndimage.gaussian_filter(canvas - luma, (0, sigma, sigma))
