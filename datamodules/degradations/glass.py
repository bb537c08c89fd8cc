"""Drops of water on a pane of glass: unions of discs, seen as a map of which drop is on top."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.degradations.packing import Draws, owners
from datamodules.degradations.spans import PIECE, Pieces, pieces_of, points_of, rows_of

_Array = NDArray[np.float64]
_BITS = 16  # that tell how deep inside a drop a pixel lies
_DEEPEST = 2**_BITS - 1


def drop_discs(
    y: _Array, x: _Array, radius: _Array, run: _Array, bumps: _Array
) -> tuple[_Array, list[int]]:
    """The discs of N drops, one drop after another: the main one, its bumps, its trail.

    ``bumps`` ``[N, 2 * K]`` are their places and sizes in [0, 1]; a trail is ``run`` long, 0 none.

    Returns:
        Row, column and radius ``[D, 3]``, and how many are of each drop.
    """
    angle, share = 2 * np.pi * bumps[:, ::2], 0.55 + 0.35 * bumps[:, 1::2]
    away = (1.3 - share) * radius[:, None]
    discs = np.empty((len(y), 1 + angle.shape[1], 3))
    discs[:, 0] = np.stack([y, x, radius], axis=1)
    discs[:, 1:, 0] = y[:, None] + away * np.sin(angle)
    discs[:, 1:, 1] = x[:, None] + away * np.cos(angle)
    discs[:, 1:, 2] = share * radius[:, None]
    found = list(discs)
    for drop in run.nonzero()[0].tolist():
        steps = 1 + int(run[drop] / (0.25 * radius[drop]))
        up = np.arange(steps + 1) / steps
        trail = np.empty((steps + 1, 3))
        trail[:, 0] = y[drop] - run[drop] * up
        trail[:, 1] = x[drop] + 0.3 * radius[drop] * up * np.sin(4 * up + angle[drop, 0])
        trail[:, 2] = (0.8 - 0.5 * up) * radius[drop]
        found[drop] = np.concatenate([found[drop], trail])
    return np.concatenate([*found, np.empty((0, 3))]), [len(of) for of in found]


def glass_of(
    discs: _Array, counts: list[int], level: _Array, size: tuple[int, int], frame: int
) -> Draws:
    """What :func:`top_drops` needs of a picture of a ``size`` with a frame around it.

    The drops, of ``counts`` discs each, come from the one below all others to the one above; each
    is level so many pixels inside its outline, ``level`` ``[N]``.
    """
    pieces = _pieces(discs, *size, frame)
    disc = np.arange(len(discs)).repeat(pieces.counts.numpy())
    drop = np.arange(len(counts)).repeat(counts)[disc]
    (y, x, radius), (row, column) = discs[disc].T, pieces.places.numpy().T
    chords = np.stack([x - column, (row - y) ** 2, radius, 1 / level[drop]], axis=1)
    return {
        "pieces": len(disc),
        "places": pieces.places,
        "chords": torch.from_numpy(chords).float(),
        "drop": torch.from_numpy(drop),
    }


def _pieces(discs: _Array, height: int, width: int, frame: int) -> Pieces:
    """Where discs ``[D, 3]`` and half a pixel around them lie in the picture and its frame."""
    y, x, radius = discs.T
    radius = radius + 0.5
    top = np.ceil(np.maximum(y - radius, -frame)).astype(int)
    bottom = np.floor(np.minimum(y + radius, height - 1 + frame)).astype(int)
    disc, row = rows_of(top, bottom)
    half = np.sqrt(np.maximum(radius[disc] ** 2 - (row - y[disc]) ** 2, 0))
    left = np.ceil(np.maximum(x[disc] - half, -frame)).astype(int)
    right = np.floor(np.minimum(x[disc] + half, width - 1 + frame)).astype(int)
    return pieces_of(disc, row, left, right, shapes=len(discs))


def top_drops(glass: Draws, height: int, width: int, frame: int) -> tuple[Tensor, Tensor, Tensor]:
    """The drop that is seen at each pixel of pictures with a frame around them, ``[B, H, W]``.

    Returns:
        Its number in its picture, int64, from 1; 0 where it is dry. How far inside it the pixel is,
        from 0 at its outline to 1 where it is level, or dry. How much of the pixel is wet.
    """
    places = glass["places"]
    picture = owners(glass["pieces"], total=len(places))
    size = len(glass["pieces"]), height + 2 * frame, width + 2 * frame
    points = points_of(places + frame, picture, *size[1:]).flatten()
    x, dy_squared, radius, per_level = glass["chords"].T.contiguous()
    dx = torch.arange(PIECE, device=places.device)[:, None] - x
    depth = radius - dx.square_().add_(dy_squared).sqrt_()
    # The last drop covers the others, and of its discs counts the one that reaches deepest: both
    # are the largest of one number.
    inside = (depth * per_level).clamp_(0, 1).mul_(_DEEPEST).long()
    wet = depth.add_(0.5).clamp_(0, 1)
    key = inside.add_((glass["drop"] + 1) << _BITS).mul_(wet > 0)
    top, wet = _largest(points, key, size, _DEEPEST), _largest(points, wet, size, 0)
    return top >> _BITS, (top & _DEEPEST) / _DEEPEST, wet


def _largest(points: Tensor, values: Tensor, size: tuple[int, int, int], least: int) -> Tensor:
    """The largest of ``least`` and the values at each pixel, ``[B, H, W]``."""
    batch, height, width = size
    canvas = values.new_full((batch * height * (width + PIECE),), least)
    canvas.scatter_reduce_(0, points, values.flatten(), "amax")
    return canvas.view(batch, height, -1)[..., :width]
