"""Many small shapes on pictures, as pieces of rows that are all of one length.

Of the square around a thin or round shape most is empty, so a shape is taken apart into rows, and
each row into pieces of ``PIECE`` pixels. What is evaluated at their points is then one dense array,
``[PIECE, S]``, with one number a piece for all that belongs to a shape.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PIECE = 6  # pixels: the fastest for flakes of snow


class Pieces(NamedTuple):
    """S pieces of N shapes, one shape after another; to be drawn, and to be packed."""

    counts: Tensor  # int64 [N], of each shape
    places: Tensor  # int32 [S, 2], row and first column; the last column may be beyond a picture


def _counted(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of ``counts`` ``[N]`` that many times: its own number, and 0, 1, 2, ..."""
    whose = np.repeat(np.arange(len(counts)), counts)
    return whose, np.arange(len(whose)) - (counts.cumsum() - counts)[whose]


def rows_of(top: np.ndarray, bottom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of shapes from ``top`` to ``bottom``, both included, int ``[N]``.

    Returns:
        The shape and the row of each, int ``[R]``; none of a shape whose bottom is above its top.
    """
    shape, row = _counted(np.maximum(bottom - top + 1, 0))
    return shape, row + top[shape]


def pieces_of(
    shape: np.ndarray, row: np.ndarray, left: np.ndarray, right: np.ndarray, *, shapes: int
) -> Pieces:
    """Rows of :func:`rows_of`, from column ``left`` to ``right``, both included, int ``[R]``.

    Both lie within a picture; there are no pieces where ``right`` is left of ``left``.
    """
    counts = np.maximum((right - left) // PIECE + 1, 0)
    which, place = _counted(counts)
    places = np.stack([row[which], left[which] + PIECE * place], axis=1)
    of_shapes = np.bincount(shape, weights=counts, minlength=shapes)
    return Pieces(torch.from_numpy(of_shapes).long(), torch.from_numpy(places.astype(np.int32)))


def rectangles(
    y: np.ndarray,
    x: np.ndarray,
    angle: np.ndarray,
    half_length: np.ndarray,
    half_width: np.ndarray,
    *,
    height: int,
    width: int,
) -> Pieces:
    """All points of a picture that lie in rectangles around points, all float ``[N]``.

    ``angle`` is that of the length in radians, 0 for down and rising to the right. A rectangle that
    does not reach the picture has no pieces.
    """
    sine, cosine = (np.where(np.abs(s) < 1e-6, 1e-6, s) for s in (np.sin(angle), np.cos(angle)))
    tan = sine / cosine
    sine, cosine = np.abs(sine), np.abs(cosine)
    down = cosine * half_length + sine * half_width
    aside = sine * half_length + cosine * half_width
    top = np.ceil(y - down).clip(min=0).astype(int)
    bottom = np.floor(y + down).clip(max=height - 1).astype(int)
    bottom[(x + aside < 0) | (x - aside > width - 1)] = -1
    shape, row = rows_of(top, bottom)
    # A row is cut by two pairs of parallel lines: the ends of the rectangle and its long sides.
    dy, tan, x = row - y[shape], tan[shape], x[shape]
    end, side = x - dy / tan, x + dy * tan
    end_half, side_half = (half_length / sine)[shape], (half_width / cosine)[shape]
    first = np.maximum(end - end_half, side - side_half)
    last = np.minimum(end + end_half, side + side_half)
    left = np.ceil(first).clip(0, width).astype(int)
    right = np.floor(last).clip(-1, width - 1).astype(int)
    return pieces_of(shape, row, left, right, shapes=len(y))


def columns_of(places: Tensor) -> Tensor:
    """The columns of all points of pieces ``[S, 2]``, float32 ``[PIECE, S]``."""
    step = torch.arange(PIECE, device=places.device, dtype=torch.float32)
    return places[:, 1] + step[:, None]


def points_of(places: Tensor, image: Tensor, height: int, width: int) -> Tensor:
    """Where all points of pieces ``[S, 2]`` of images ``[S]`` are, int64 ``[PIECE, S]``.

    These are indices into a flat canvas ``[B, height, width + PIECE]``, whose last columns take
    what ends beyond the picture.
    """
    first = (image * height + places[:, 0]) * (width + PIECE) + places[:, 1]
    return first + torch.arange(PIECE, device=places.device)[:, None]
