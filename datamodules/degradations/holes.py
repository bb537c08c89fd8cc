"""The holes of inpainting: boxes, halves and strokes, drawn or read from files of masks.

Every function here returns a boolean array ``[height, width]`` that is true in holes.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mrdiff.photo import read_rgb

_CROPS = 8  # how often another piece of a mask is tried before what came last is taken


def _walk(rng: np.random.Generator, turn: float, steps: int, length: float) -> np.ndarray:
    """A path ``[steps + 1, 2]`` from the origin whose direction changes by up to ``turn``."""
    changes = rng.uniform(-turn, turn, steps)
    direction = rng.uniform(0, 2 * math.pi) + np.cumsum(changes)
    reach = rng.uniform(0.4, 1, steps) * length
    path = np.stack([np.cos(direction) * reach, np.sin(direction) * reach], axis=1)
    return np.concatenate([np.zeros((1, 2)), path.cumsum(0)])


def _stroke(draw: ImageDraw.ImageDraw, path: np.ndarray, thickness: float) -> None:
    """Draw ``path`` [N, 2] with round ends and round corners."""
    points = [tuple(point) for point in path]
    draw.line(points, fill=1, width=max(1, round(thickness)))
    for x, y in points:
        draw.circle((x, y), thickness / 2, 1)


def thin(height: int, width: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Straight strokes with sharp bends, of 7 to 17 pixels, until ``share`` is covered."""
    canvas = Image.new("L", (width, height))
    draw, side = ImageDraw.Draw(canvas), min(height, width)
    while canvas.histogram()[1] < share * height * width:
        path = _walk(rng, turn=2.4, steps=int(rng.integers(1, 6)), length=min(45, side / 2))
        start = rng.uniform((0, 0), (width, height))
        _stroke(draw, start + path, min(rng.uniform(7, 17), side / 4))
    return np.array(canvas, dtype=bool)


def brush(height: int, width: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Winding strokes as wide as a twentieth to a sixth of the shorter side, up to ``share``."""
    canvas = Image.new("L", (width, height))
    draw, side = ImageDraw.Draw(canvas), min(height, width)
    while canvas.histogram()[1] < share * height * width:
        thickness = rng.uniform(side / 20, side / 6)
        path = _walk(rng, turn=0.7, steps=int(rng.integers(3, 13)), length=thickness)
        start = rng.uniform((0, 0), (width, height))
        _stroke(draw, start + path, thickness)
    return np.array(canvas, dtype=bool)


def box(height: int, width: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """One to three rectangles of ``share`` together, less where they overlap."""
    holes = np.zeros((height, width), dtype=bool)
    count = int(rng.integers(1, 4))
    for _ in range(count):
        area = share * height * width / count
        tall = math.exp(rng.uniform(-0.7, 0.7))
        rows = min(height, round(math.sqrt(area * tall)))
        columns = min(width, round(area / max(rows, 1)))
        top = int(rng.integers(0, height - rows + 1))
        left = int(rng.integers(0, width - columns + 1))
        holes[top : top + rows, left : left + columns] = True
    return holes


def half(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """The left, right, upper or lower half."""
    holes = np.zeros((height, width), dtype=bool)
    side = int(rng.integers(4))
    if side < 2:
        holes[:, : width // 2] = True
    else:
        holes[: height // 2] = True
    return holes[::-1, ::-1] if side % 2 else holes


def read_holes(path: Path, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """The dark parts of the mask in ``path``, turned, flipped and cut to size at random.

    A mask that is smaller than the picture is enlarged; of a larger one a piece is taken as it is,
    so that strokes keep their width in the patches of training.
    """
    holes = read_rgb(path).mean(0).numpy() < 0.5
    square = holes.shape[0] == holes.shape[1]
    lying = (holes.shape[0] < holes.shape[1]) == (height < width)
    if rng.uniform() < 0.5 if square else not lying:
        holes = holes.T
    holes = holes[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
    scale = max(height / holes.shape[0], width / holes.shape[1], 1.0)
    rows, columns = (_nearest(length, scale) for length in holes.shape)
    holes = holes[rows[:, None], columns]
    return _piece(holes, height, width, rng)


def _nearest(length: int, scale: float) -> np.ndarray:
    """Which of ``length`` pixels stands at each place of a line enlarged by ``scale``."""
    places = np.arange(math.ceil(length * scale)) / scale
    return np.minimum(places.astype(int), length - 1)  # rounding may reach one too far


def _piece(holes: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A random window of ``holes``, with something missing and something left if there is one."""
    for _ in range(_CROPS):
        top = int(rng.integers(0, holes.shape[0] - height + 1))
        left = int(rng.integers(0, holes.shape[1] - width + 1))
        window = holes[top : top + height, left : left + width]
        if window.any() and not window.all():
            break
    return window
