"""Run a denoiser on overlapping tiles, so that an image of any size fits in memory.

The tiles are put together at every call, hence at every solver step: the solver sees one whole
image, its noise does not depend on the tiling, and seams cannot grow from step to step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby, product

import torch
from torch import Tensor

from mrdiff.diffusion.path import Time
from mrdiff.diffusion.prediction import Output, Prediction
from mrdiff.diffusion.wrappers import (
    ContextDenoiser,
    DenoiserLike,
    DenoiserWrapper,
    Stage,
    prepared,
)
from mrdiff.networks.protocol import Context

__all__ = ["TiledDenoiser", "even_tile", "tile_spans"]

Span = tuple[int, int]
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


def even_tile(length: int, tile: int, overlap: int) -> int:
    """The shortest tile that covers ``length`` with as few tiles as ``tile`` does.

    A photo a little longer than a tile is cut in two halves, not into two tiles that share nearly
    all they see. A multiple of ``_ALIGN``, but no longer than ``tile``.
    """
    rest = length - (_ALIGN - 1)  # the last one may be that much longer
    if rest <= tile:
        return tile
    count = math.ceil((rest - overlap) / (tile - overlap))
    even = (length + (count - 1) * overlap) / count
    return min(tile, math.ceil(even / _ALIGN) * _ALIGN)


def _ramp(span: tuple[int, int], length: int, overlap: int) -> Tensor:
    """Weights of a tile along one axis, float32 ``[stop - start]``.

    At an edge within the image: 0 over a quarter of the overlap, where the tile's own border
    harms the prediction, then a linear rise over the middle half. At the image's edge: 1.
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


Strip = tuple[Span, Tensor]  # of a tile along one axis, with its weights
Part = tuple[Strip, Strip]  # rows and columns of a tile


@lru_cache(64)
@torch.inference_mode(False)  # they outlive the run, and may be in another's gradients
def _strips(
    length: int, tile: int, overlap: int, device: torch.device, dtype: torch.dtype
) -> list[Strip]:
    """The tiles of one axis, whose weights sum to 1 at each place; so do then those of both."""
    spans = tile_spans(length, even_tile(length, tile, overlap), overlap)
    ramps = [_ramp(span, length, overlap) for span in spans]
    total = torch.zeros(length)
    for span, ramp in zip(spans, ramps, strict=True):
        total[slice(*span)] += ramp
    shares = (ramp / total[slice(*span)] for span, ramp in zip(spans, ramps, strict=True))
    return list(zip(spans, (share.to(device, dtype) for share in shares), strict=True))


def _alike(parts: Iterable[Part], most: int) -> Iterator[list[Part]]:
    """Neighbouring tiles of one size, ``most`` together."""
    for _, equal in groupby(parts, key=lambda part: [len(strip[1]) for strip in part]):
        group = list(equal)
        for i in range(0, len(group), most):
            yield group[i : i + most]


class TiledDenoiser(DenoiserWrapper):
    """A denoiser that sees an image tile by tile and blends the predictions.

    For a network whose reach is at most ``overlap // 4`` pixels and whose stride divides 16 the
    result is that of the whole image; else it is close to it. An image no larger than a tile goes
    through in one call.

    Args:
        denoiser: ``(x, t, mu) -> Prediction``; it takes a context as fourth argument, if any.
        tile: longest side of the tiles in pixels; more than ``overlap + 16``.
        overlap: pixels that neighbouring tiles share; >= 4.
        context: of the whole images; what has pixels ``[B, C, H, W]`` in it is cut like them.
        together: tiles of one size that go through the network at once.
    """

    def __init__(
        self,
        denoiser: DenoiserLike | ContextDenoiser,
        tile: int,
        overlap: int = 32,
        *,
        context: Context | None = None,
        together: int = 1,
    ) -> None:
        if overlap < 4 or tile <= overlap + _ALIGN:
            message = f"tile must exceed overlap + {_ALIGN} and overlap 3, got {tile} and {overlap}"
            raise ValueError(message)
        super().__init__(denoiser)
        self.tile = tile
        self.overlap = overlap
        self.context = context
        self.together = together

    def prepare(
        self, mu: Tensor | None, times: Sequence[float], context: Context | None = None
    ) -> DenoiserLike:
        given = context or self.context
        # What has pixels is cut with the tiles; the rest is theirs all alike, if of one image.
        cut = any(value.ndim == 4 for value in (given or {}).values())
        several = mu is not None and len(mu) > 1 and self.together > 1
        other = copy.copy(self)
        other.context = given
        if not (cut or several) and hasattr(self.denoiser, "prepare"):
            whole = mu is not None and max(mu.shape[-2:]) <= self.tile
            other.denoiser = prepared(self.denoiser, mu if whole else None, times, given)
            other.context = None
        return other

    def first_stage(self, mu: Tensor, context: Context | None = None) -> Stage | None:
        """In the same tiles."""
        found = super().first_stage(mu, context or self.context)
        if found is None:
            return None
        start, given = found
        how = self.tile, self.overlap
        return TiledDenoiser(start, *how, context=given, together=self.together), None

    def __call__(self, x: Tensor, t: Time, mu: Tensor) -> Prediction:
        """Predict from ``x`` and ``mu`` ``[B, C, H, W]`` at ``t`` (a float or ``[B]``)."""
        if max(x.shape[-2:]) <= self.tile:
            if self.context is None:
                return self.denoiser(x, t, mu)
            return self.denoiser(x, t, mu, self.context)
        blended, read = torch.zeros_like(x), None
        rows, columns = (
            _strips(length, self.tile, self.overlap, x.device, x.dtype) for length in x.shape[-2:]
        )
        for parts in _alike(product(rows, columns), self.together):
            predicted = self._predict(x, t, mu, parts)
            if isinstance(predicted, Output) and not isinstance(t, Tensor):
                tiles, read = predicted.out, predicted.reading  # what is read of all tiles alike
            else:
                tiles = predicted.x0
            for ((row, down), (column, across)), tile in zip(
                parts, tiles.chunk(len(parts)), strict=True
            ):
                here = blended[..., slice(*row), slice(*column)]
                here.addcmul_(tile, down[:, None] * across)
        if read is not None:
            return Output(blended, read, x, mu, self.process.centred(mu, t))
        return Prediction(blended, lambda: self.process.noise_in(x, blended, mu, t))

    def _predict(self, x: Tensor, t: Time, mu: Tensor, parts: Sequence[Part]) -> Prediction:
        """Of tiles of one size, as a batch."""

        def cut(image: Tensor) -> Tensor:
            tiles = [image[..., slice(*row), slice(*column)] for (row, _), (column, _) in parts]
            return torch.cat(tiles) if len(tiles) > 1 else tiles[0]

        times = t.repeat(len(parts)) if isinstance(t, Tensor) and t.ndim else t
        if self.context is None:
            return self.denoiser(cut(x), times, cut(mu))
        context = {
            key: cut(v) if v.ndim == 4 else v.repeat(len(parts), *[1] * (v.ndim - 1))
            for key, v in self.context.items()
        }
        return self.denoiser(cut(x), times, cut(mu), context)
