"""The leaves of a dead-leaves picture: how large they are, where they lie, their outlines."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.leaves.look import LeafLook, Stream
from datamodules.leaves.textures import Array, fractal, turned

_MOST_LEAVES = 2500
_LARGE = 30.0  # pixels: larger leaves lie anywhere
_DISC, _ELLIPSE, _BOX, _STICK, _BLADE, _WEDGE = range(6)
_SHARES = (0.0, 0.4, 0.25, 0.1, 0.12, 0.13)  # of the shapes that are no discs


class Outline(NamedTuple):
    """One leaf: half its length in pixels, kind, turn, width over length, width of its edge."""

    radius: float
    kind: int
    turn: float
    thin: float
    soft: float


def radii_of(look: LeafLook, rng: np.random.Generator, size: int) -> Array:
    """Radii in pixels, density r^-3 between a smallest one, drawn per picture, and size / 2."""
    least, most = np.exp(rng.uniform(*np.log(look.least))), size / 2
    area = 2 * np.pi * np.log(most / least) / (least**-2 - most**-2)
    count = max(1, min(_MOST_LEAVES, int(rng.uniform(*look.cover) * size**2 / area)))
    chance = rng.random(count)
    return np.asarray((least**-2 + chance * (most**-2 - least**-2)) ** -0.5, np.float32)


def outlines_of(look: LeafLook, stream: Stream, radii: Array) -> list[Outline]:
    """An outline for each radius."""
    count = len(radii)
    rng, upright, focus = stream("shapes"), stream("upright"), stream("defocus")
    other = rng.random(count) < look.shapes
    kind = np.where(other, rng.choice(len(_SHARES), size=count, p=_SHARES), _DISC)
    turn, thin = rng.uniform(0, np.pi, count), rng.uniform(0.3, 1.0, count)
    thin = np.where(kind == _STICK, np.maximum(0.7 / radii, 0.15 * thin), thin)
    if upright.random() < look.upright:
        tilt = upright.normal(0, 0.03) + np.pi / 2 * upright.integers(0, 2, count)
        keeps = upright.random(count) < upright.uniform(0.5, 1)
        turn = np.where(keeps, tilt + upright.normal(0, 0.03, count), turn)
    soft = np.where(focus.random(count) < look.defocus, focus.uniform(0, 0.2, count), 0.0)
    columns = (radii, kind, turn, thin, 1 + soft * radii)
    return [Outline(*leaf) for leaf in zip(*(column.tolist() for column in columns), strict=True)]


def gathered(
    look: LeafLook, stream: Stream, centres: Array, radii: Array, size: int
) -> NDArray[np.bool_]:
    """Which leaves stay, so that small ones are dense in some places and rare in others."""
    if not look.clusters:
        return np.ones(len(radii), bool)
    rng = stream("clusters")
    row, column = centres.astype(int).T
    density = 1 / (1 + np.exp(-3 * fractal(rng, size, 1.8)[row, column]))
    gone = look.clusters * np.exp(-radii / _LARGE) * (1 - density)
    return np.asarray(rng.random(len(radii)) >= gone)


def bent(look: LeafLook, stream: Stream, size: int) -> Array | None:
    """Shifts in pixels ``[2, S, S]`` that take outlines away from those of a drawing."""
    if not look.bend:
        return None
    rng = stream("bend")
    strength, exponent = look.bend * rng.random() ** 2, rng.uniform(1.6, 2.4)
    return np.stack([np.float32(strength) * fractal(rng, size, exponent) for _ in range(2)])


def coverage(leaf: Outline, y: Array, x: Array) -> Array:
    """How much of each pixel at (y, x) from its middle a leaf covers, in [0, 1]."""
    radius, thin = leaf.radius, leaf.thin
    u, v = turned(y, x, leaf.turn)
    inside: NDArray[Any]
    if leaf.kind == _DISC:
        inside = radius - np.sqrt(u * u + v * v)
    elif leaf.kind == _ELLIPSE:
        inside = thin * (radius - np.sqrt(u * u + (v / thin) ** 2))
    elif leaf.kind == _BOX:
        inside = np.minimum(0.9 * radius - np.abs(u), 0.9 * thin * radius - np.abs(v))
    elif leaf.kind == _STICK:
        inside = np.minimum(1.4 * radius - np.abs(u), thin * radius - np.abs(v))
    elif leaf.kind == _BLADE:
        inside = 0.6 * thin * (1.3 * radius - u * u / (1.3 * radius)) - np.abs(v)
    else:
        sides = [turned(v, u, a)[0] for a in (0.0, 2.1, 4.2)]
        inside = 0.6 * radius - np.maximum.reduce(sides)
    return np.asarray((0.5 + inside / leaf.soft).clip(0, 1), np.float32)
