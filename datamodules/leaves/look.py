"""What dead-leaves pictures look like: one number an ingredient, 0 switches it off."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np

Stream: TypeAlias = Callable[[str], np.random.Generator]


@dataclass(frozen=True, kw_only=True)
class LeafLook:
    """The ingredients of a picture; without any (:data:`PLAIN`) it is one of plain discs.

    Each ingredient draws from a random stream of its own, so that one that is switched off leaves
    all others as they were. A chance is that of a picture to have the ingredient, in [0, 1].

    Args:
        shapes: share of the leaves that are no discs but ellipses, boxes, sticks, blades, wedges.
        upright: chance that the leaves of a picture keep to the horizontal and the vertical.
        clusters: how far small leaves gather in some places, in [0, 1].
        harmony: how far small leaves take the colour of what they lie on, in [0, 1].
        nature: share of the colours that have the hues of nature; without, they are uniform in RGB.
        texture: greatest contrast of a leaf's texture, standard deviation over mean.
        motley: greatest contrast of a leaf's changes of colour at equal brightness.
        stripes: share of the textures that are stripes.
        fur: share of the other textures that are strands side by side, as of hair and grass.
        shading: standard deviation of the change of brightness from a leaf's middle to its rim;
            above 0 what lies below all leaves is a gradient too.
        defocus: share of the leaves with soft edges, those out of the depth of field.
        bend: greatest standard deviation in pixels of the field that bends outlines.
        sky: chance of a large, smooth, nearly empty area.
        bricks: chance of a wall of bricks, tiles or windows.
        wires: chance of thin lines: wires, twigs, hair, grass.
        text: chance of lines of short strokes, like writing.
        shadows: chance of soft shadows.
        highlights: chance of specular highlights.
        light: greatest standard deviation of the logarithm of the light over the picture.
        tone: how far brightness, contrast and tint are set as a photographer would, in [0, 1].
        blur: chance that the whole picture is out of focus; above 0 a lens blurs a little anyway.
        sharpening: greatest amount of the unsharp mask of cameras and scanners.
        grain: greatest standard deviation of the sensor's noise, in image units.
        chroma: greatest standard deviation in pixels of the blur of colour alone.
        exponents: range of the exponents e of the textures' amplitude spectra 1/f^e.
        least: range, in pixels, of the radius of a picture's smallest leaves.
        cover: range of the leaves' area in areas of the picture.
    """

    shapes: float = 1.0
    upright: float = 0.7
    clusters: float = 0.8
    harmony: float = 0.9
    nature: float = 0.93
    texture: float = 0.55
    motley: float = 0.2
    stripes: float = 0.12
    fur: float = 0.35
    shading: float = 0.15
    defocus: float = 0.2
    bend: float = 6.0
    sky: float = 0.3
    bricks: float = 0.2
    wires: float = 0.35
    text: float = 0.2
    shadows: float = 0.3
    highlights: float = 0.25
    light: float = 0.25
    tone: float = 1.0
    blur: float = 0.08
    sharpening: float = 0.6
    grain: float = 0.012
    chroma: float = 2.5
    exponents: tuple[float, float] = (0.7, 1.6)
    least: tuple[float, float] = (0.9, 12.0)
    cover: tuple[float, float] = (0.8, 2.5)

    def __post_init__(self) -> None:
        for name in ingredients():
            most = 100.0 if name in _NO_SHARES else 1.0
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must lie in [0, {most:g}], got {getattr(self, name)}")
        for name, least in (("exponents", 0.0), ("least", 0.5), ("cover", 0.0)):
            low, high = getattr(self, name)
            if not least <= low <= high <= 100:
                raise ValueError(f"{name} must rise within [{least:g}, 100], got ({low}, {high})")


_NO_SHARES = frozenset(
    {"texture", "shading", "bend", "light", "sharpening", "grain", "chroma", "motley"}
)
_RANGES = frozenset({"exponents", "least", "cover"})


def ingredients() -> tuple[str, ...]:
    """The names of what can be switched off."""
    return tuple(f.name for f in fields(LeafLook) if f.name not in _RANGES)


LOOK = LeafLook()  # of all recipes that name no other
_OFF: dict[str, Any] = dict.fromkeys(ingredients(), 0.0)
PLAIN = replace(LOOK, **_OFF)


def streams(seed: int, index: int) -> Stream:
    """Independent random streams of one picture, by name."""
    return lambda name: np.random.default_rng((seed, index, zlib.crc32(name.encode())))
