"""Which tiles a photo goes through a network in: chosen by the memory, smaller if it runs out."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.wrappers import BoundDenoiser, DenoiserLike
from mrdiff.networks.protocol import Context, known_features
from mrdiff.restoration.footprint import Footprint, footprint
from mrdiff.restoration.graphs import GraphedDenoiser, Graphs
from mrdiff.restoration.tiled_denoiser import TiledDenoiser
from mrdiff.system.memory import is_out_of_memory

__all__ = ["Tiler"]

_OVERLAP = 128
_LEAST = 256  # of our own choice they get no smaller


def _side(tile: str | int) -> int | None:
    if tile in ("auto", "off"):
        return None
    if not str(tile).isdecimal() or int(tile) < 64:
        raise ValueError(f"tile must be auto, off or a side of at least 64 pixels, got {tile}")
    return int(tile)


class Tiler:
    """The tiles for photos of any size.

    ``tile`` is ``"auto"`` (the largest that the memory holds, and whole photos up to that),
    ``"off"``, or a side in pixels >= 64; anything else is a ValueError. On a GPU the calls for
    tiles are recorded in ``graphs``.
    """

    def __init__(
        self, denoiser: Denoiser, tile: str | int, *, graphs: Graphs | None = None
    ) -> None:
        self.denoiser, self._graphs = denoiser, graphs or Graphs()
        self.automatic = tile == "auto"
        self._chosen = _side(tile)
        self._too_large = math.inf  # pixels of a whole photo that did not fit
        self._alone = False  # the memory was not what it seemed: no more tiles or photos together

    def side(self, height: int, width: int) -> int | None:
        """The side of the tiles for a photo of this size, or None for the whole photo at once."""
        if not self.automatic:
            return self._chosen
        if self._chosen is None:  # asked for the first time on this device
            self._chosen = self._footprint().side
        pixels = height * width
        return None if pixels <= self._chosen**2 and pixels < self._too_large else self._chosen

    def photos(self, height: int, width: int) -> int:
        """How many photos of this size go through the network at once: on a CPU, one."""
        if self._device.type != "cuda":
            return 1
        cut = max(height, width) > (self.side(height, width) or math.inf)
        return 1 if cut else self._together(height * width)

    def run(
        self,
        work: Callable[[DenoiserLike], Tensor],
        height: int,
        width: int,
        *,
        context: Context | None = None,
    ) -> Tensor:
        """Do work with the model for photos of this size, again with smaller tiles if need be.

        The network is given ``context``, which is that of the photos.

        Raises:
            MemoryError: there is not enough for the tiles that were asked for, or the smallest.
        """
        while True:
            side = self.side(height, width)
            try:
                return work(self._model(side, context))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                used = side or max(height, width)
                fewer = side is not None and self._together(side**2) > 1
                self._alone = True
                if not fewer and (not self.automatic or used <= _LEAST):
                    raise MemoryError(f"no memory for tiles of {used} pixels") from error
            self._graphs.clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if fewer:  # the same tiles, one by one: of smaller ones as many pixels would be taken
                continue
            if side is None:  # tiles of a quarter of its pixels, however long it is
                self._too_large = min(self._too_large, height * width)
                side = math.isqrt(height * width)
            self._chosen = max(_LEAST, side // 2)

    def _together(self, pixels: int) -> int:
        """Images of so many pixels that go through the network at once."""
        if self._alone or self._device.type != "cuda":  # the network need not be tried for it
            return 1
        return self._footprint().together(pixels)

    @property
    def _device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    def _footprint(self) -> Footprint:
        like = torch.zeros(1, 3, 1, 1, device=self._device)  # float32, whatever the weights are
        features = known_features(self.denoiser.network).items()
        blank = {name: like.new_zeros(1, width) for name, width in features}
        found = footprint(self.denoiser, like, blank or None)
        if self.denoiser.start is None:
            return found
        return max(found, footprint(self.denoiser.start, like), key=lambda each: each.bytes)

    def _model(self, side: int | None, context: Context | None) -> DenoiserLike:
        if side is None:
            return BoundDenoiser(self.denoiser, context) if context else self.denoiser
        overlap = min(_OVERLAP, side // 4)
        if self._device.type != "cuda":
            return TiledDenoiser(self.denoiser, side, overlap, context=context)
        graphed = GraphedDenoiser(self.denoiser, self._graphs)
        together = self._together(side**2)
        return TiledDenoiser(graphed, side, overlap, context=context, together=together)
