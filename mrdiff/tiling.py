"""Run a denoiser on overlapping tiles, so that an image of any size fits in memory.

The tiles are put together at every call, hence at every solver step: the solver sees one whole
image, its noise does not depend on the tiling, and seams cannot grow from step to step.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any, cast

import torch
from torch import Tensor

from mrdiff.denoiser import ContextDenoiser, DenoiserLike, Prediction
from mrdiff.process import MRProcess

__all__ = ["TiledDenoiser", "tile_spans"]

_ALIGN = 16  # tiles start on multiples of this, so that strided networks sample the same grid


def tile_spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Spans ``(start, stop)`` that cover ``range(length)``, evenly spread, in order.

    Neighbours share at least ``overlap`` positions. Every span is ``tile`` long, but for the last
    one, which reaches the end and may be up to ``_ALIGN - 1`` longer.
    """
    if length <= tile:
        return [(0, length)]
    last = (length - tile) // _ALIGN * _ALIGN
    stride = max(_ALIGN, (tile - overlap) // _ALIGN * _ALIGN)
    count = math.ceil(last / stride)
    starts = [round(i * last / max(count, 1) / _ALIGN - 0.5 + 1e-9) * _ALIGN for i in range(count)]
    starts.append(last)
    return [(start, start + tile) for start in starts[:-1]] + [(last, length)]


def _ramp(span: tuple[int, int], length: int, overlap: int) -> Tensor:
    """Weights of a tile along one axis, float32 ``[stop - start]``.

    At an edge within the image: 0 over a quarter of the overlap, where the tile's own border
    spoils the prediction, then a linear rise over the middle half. At the image's edge: 1.
    """
    start, stop = span
    position = torch.arange(stop - start, dtype=torch.float32)
    margin = overlap // 4
    width = max(1, overlap - 2 * margin)
    rise = ((position - margin + 1) / (width + 1)).clamp(0.0, 1.0)
    weights = torch.ones_like(position)
    if start > 0:
        weights = torch.minimum(weights, rise)
    if stop < length:
        weights = torch.minimum(weights, rise.flip(0))
    return weights


class TiledDenoiser:
    """A denoiser that sees an image tile by tile and blends the predictions.

    For a network whose reach is at most ``overlap // 4`` pixels and whose stride divides 16 the
    result is that of the whole image; else it is close to it. An image no larger than a tile goes
    through in one call.

    Args:
        denoiser: ``(x, t, mu) -> Prediction`` with ``.process``.
        tile: side of the tiles in pixels; more than ``overlap + 16``.
        overlap: pixels that neighbouring tiles share; >= 4.
        context: of the whole images; what has pixels ``[B, C, H, W]`` in it is cut like them,
            and the denoiser takes it as fourth argument.

    Raises:
        ValueError: ``tile`` or ``overlap`` is too small.
    """

    def __init__(
        self,
        denoiser: DenoiserLike | ContextDenoiser,
        tile: int,
        overlap: int = 32,
        *,
        context: dict[str, Tensor] | None = None,
    ) -> None:
        if overlap < 4 or tile <= overlap + _ALIGN:
            message = f"tile must exceed overlap + {_ALIGN} and overlap 3, got {tile} and {overlap}"
            raise ValueError(message)
        self.denoiser = denoiser
        self.tile = tile
        self.overlap = overlap
        self.context = context

    @property
    def process(self) -> MRProcess:
        """The process of the denoiser."""
        return self.denoiser.process

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        """Predict from ``x`` and ``mu`` ``[B, C, H, W]`` at ``t`` (0-dim or ``[B]``)."""
        height, width = x.shape[-2:]
        if max(height, width) <= self.tile:
            return self._predict(x, t, mu, ...)
        x0, eps = torch.zeros_like(x), torch.zeros_like(x)
        total = x.new_zeros(height, width)
        rows = tile_spans(height, self.tile, self.overlap)
        columns = tile_spans(width, self.tile, self.overlap)
        for row, column in product(rows, columns):
            part = (..., slice(*row), slice(*column))
            across = _ramp(column, width, self.overlap)
            weight = (_ramp(row, height, self.overlap)[:, None] * across).to(x)
            prediction = self._predict(x, t, mu, part)
            x0[part] += weight * prediction.x0
            eps[part] += weight * prediction.eps
            total[part] += weight
        return Prediction(x0 / total, eps / total)

    def _predict(self, x: Tensor, t: Tensor, mu: Tensor, part: Any) -> Prediction:
        """The prediction for one tile."""
        if self.context is None:
            return self.denoiser(x[part], t, mu[part])
        context = {key: v[part] if v.ndim == 4 else v for key, v in self.context.items()}
        return cast(ContextDenoiser, self.denoiser)(x[part], t, mu[part], context)
