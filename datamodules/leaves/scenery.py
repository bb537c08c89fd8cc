"""What dead leaves lack beside leaves: empty areas, walls, thin lines and writing."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from datamodules.leaves.look import LeafLook, Stream
from datamodules.leaves.textures import Array, Palette, fractal, turned

_OVER = 4  # samples a pixel and side where lines are drawn
Curve = NDArray[np.float64]  # points [N, 2] as (x, y) in pixels


def _placed(rng: np.random.Generator, size: int, *, upright: bool) -> tuple[Array, Array]:
    """Coordinates from a random place in the picture, nearly upright or turned at random."""
    turn = rng.normal(0, 0.05) if upright else rng.uniform(0, np.pi)
    grid, (y, x) = np.arange(size, dtype=np.float32), rng.uniform(0, size, 2).tolist()
    return turned(grid[:, None] - y, grid - x, turn)


def sky(stream: Stream, canvas: Array, palette: Palette) -> Array:
    """One side of the picture up to a rough horizon, smooth but for a gradient and faint clouds."""
    rng, size = stream("sky"), canvas.shape[-1]
    place = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    rough = rng.uniform(0, 0.1) * fractal(rng, size, rng.uniform(1.3, 2.2))
    height, soft = rng.uniform(0.25, 0.9), math.exp(rng.uniform(0, math.log(8)))
    cover = np.clip(0.5 + (height + rough - place) * size / soft, 0, 1)
    near, far = palette.near(rng, 2)
    far = near + 0.4 * (far - near)
    clouds = rng.uniform(0, 0.05) * fractal(rng, size, 1.8)
    smooth = near + (far - near) * place / height + clouds
    side = int(rng.integers(4))
    cover, smooth = (np.rot90(layer, side, (-2, -1)) for layer in (cover, smooth))
    return canvas + cover * (smooth - canvas)


def bricks(look: LeafLook, stream: Stream, canvas: Array, palette: Palette) -> Array:
    """A wall in perspective: cells of equal size and varied colour, with joints or frames."""
    rng, size = stream("bricks"), canvas.shape[-1]
    u, v = _placed(rng, size, upright=bool(rng.random() < 0.8))
    half = (rng.uniform(0.15, 0.6, 2) * size).tolist()
    inside = np.minimum(half[0] - np.abs(u), half[1] - np.abs(v))
    depth = 1 + rng.uniform(-0.6, 0.6) * u / size
    u, v = u / depth, v / depth
    tall = math.exp(rng.uniform(math.log(4), math.log(40)))
    wide = tall * math.exp(rng.uniform(math.log(0.5), math.log(3)))
    joint = max(0.7, rng.uniform(0.04, 0.3) * min(tall, wide))
    row = np.floor(v / tall)
    along = u / wide + float(rng.choice([0.0, 0.5])) * (row % 2)
    column = np.floor(along)
    edge = np.minimum(
        wide * (0.5 - abs(along - column - 0.5)), tall * (0.5 - abs(v / tall - row - 0.5))
    )
    face = np.clip(0.5 + edge - joint / 2, 0, 1)
    bright = np.exp(rng.uniform(0, 0.35) * rng.standard_normal((16, 16), np.float32))
    varied = bright[row.astype(int) % 16, column.astype(int) % 16]
    surface = 1 + rng.uniform(0, 0.6) * look.texture * fractal(rng, size, 0.8)
    stone, mortar = palette.near(rng, 2)
    wall = mortar + face * (stone * varied - mortar)
    return canvas + np.clip(0.5 + inside, 0, 1) * (wall * surface - canvas)


def painted(canvas: Array, curves: list[Curve], width: float, colour: Array) -> Array:
    """The canvas with curves drawn on it, ``width`` pixels wide, anti-aliased."""
    size, drawn = canvas.shape[-1], max(1, round(width * _OVER))
    image = Image.new("L", (size * _OVER, size * _OVER))
    pen = ImageDraw.Draw(image)
    for curve in curves:
        points = [(x * _OVER, y * _OVER) for x, y in curve.tolist()]
        pen.line(points, fill=255, width=drawn, joint="curve")
    cover = np.asarray(image.reduce(_OVER), np.float32) / 255
    return canvas + cover * (colour - canvas)


def _ink(rng: np.random.Generator, palette: Palette) -> Array:
    """Black, white or a colour of the picture."""
    kind = rng.random()
    grey = rng.uniform(0, 0.12) if kind < 0.35 else rng.uniform(0.8, 1)
    plain = np.full((3, 1, 1), grey, np.float32)
    return plain if kind < 0.6 else palette.near(rng, 1)[0]


def wires(stream: Stream, canvas: Array, palette: Palette) -> Array:
    """Bundles of smooth curves: a few wires or twigs across the picture, or a tuft of hair."""
    rng, size = stream("wires"), canvas.shape[-1]
    for _ in range(int(rng.integers(1, 4))):
        tuft = rng.random() < 0.4
        count, length = (rng.integers(15, 80), 0.25) if tuft else (rng.integers(1, 7), 1.2)
        start = rng.uniform(0, size, 2) if tuft else rng.uniform(-0.2, 0.6, 2) * size
        turn = rng.uniform(0, 2 * np.pi) if tuft else rng.uniform(0, np.pi / 2)
        heading = np.array([np.cos(turn), np.sin(turn)])
        across = heading[::-1] * (-1, 1)
        spread, sag = rng.uniform(0.03, 0.3) * size, rng.normal(0, 0.12)
        t = np.linspace(0, 1, 12)[:, None]
        curves = []
        for _ in range(int(count)):
            begin = start + across * rng.normal(0, spread)
            reach = length * size * rng.uniform(0.6, 1.2)
            lean = rng.normal(0, 0.25 if tuft else 0.02)
            curves.append(begin + reach * (t * heading + (lean * t + sag * t * (1 - t)) * across))
        width = np.exp(rng.uniform(np.log(0.5), np.log(1.6 if tuft else 4)))
        canvas = painted(canvas, curves, width, _ink(rng, palette))
    return canvas


def _glyph(rng: np.random.Generator) -> list[Curve]:
    """Two or three strokes on a grid of 2 x 3 points, some of them bowed, in a box of height 1."""
    strokes = []
    for _ in range(int(rng.integers(2, 4))):
        ends = rng.integers(0, (2, 3), (2, 2)) * (0.55, 0.5)
        if (ends[0] == ends[1]).all():
            ends[1, 1] = 1 - ends[1, 1] * 0.9
        t = np.linspace(0, 1, 6)[:, None]
        bow = rng.choice([0.0, 0.0, 0.5, -0.5]) * (ends[1] - ends[0])[::-1] * (-1, 1)
        strokes.append(ends[0] + t * (ends[1] - ends[0]) + 4 * t * (1 - t) * bow * 0.5)
    return strokes


def text(stream: Stream, canvas: Array, palette: Palette) -> Array:
    """A block of lines of made-up letters, often on a plate, nearly upright."""
    rng, size = stream("text"), canvas.shape[-1]
    height = np.exp(rng.uniform(np.log(6), np.log(40)))
    letters = [_glyph(rng) for _ in range(12)]
    turn = rng.normal(0, 0.08) if rng.random() < 0.8 else rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    origin, slant = rng.uniform(0.02, 0.6, 2) * size, rng.uniform(0, 0.25)
    rows, columns = int(rng.integers(1, 7)), int(rng.integers(3, 26))
    curves = []
    for row in range(rows):
        for column in np.flatnonzero(rng.random(columns) < 0.85):  # the others part words
            for stroke in letters[int(rng.integers(len(letters)))]:
                spot = stroke + (0.85 * column, 1.6 * row) + slant * (0.5 - stroke[:, 1:]) * (1, 0)
                curves.append(origin + height * spot @ rotation)
    if rng.random() < 0.6:
        middle = 0.8 * rows - 0.3
        plate = np.array([(-0.6, middle), (0.85 * columns + 0.5, middle)])
        board = palette.near(rng, 1)[0]
        canvas = painted(canvas, [origin + height * plate @ rotation], 1.7 * rows * height, board)
    return painted(canvas, curves, max(0.6, rng.uniform(0.08, 0.22) * height), _ink(rng, palette))
