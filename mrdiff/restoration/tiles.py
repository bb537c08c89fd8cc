"""Which tiles a photo goes through a network in: chosen by the memory, smaller if it runs out."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import BoundDenoiser, Denoiser, DenoiserLike
from mrdiff.networks.protocol import Context, known_features
from mrdiff.restoration.footprint import budget, bytes_a_pixel, largest_tile, tiles_together
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
    ``"off"``, or a side in pixels >= 64; anything else is a ValueError.
    """

    def __init__(self, denoiser: Denoiser, tile: str | int) -> None:
        self.denoiser = denoiser
        self.automatic = tile == "auto"
        self._chosen = _side(tile)
        self._too_large = math.inf  # pixels of a whole photo that did not fit

    def side(self, height: int, width: int) -> int | None:
        """The side of the tiles for a photo of this size, or None for the whole photo at once."""
        if not self.automatic:
            return self._chosen
        if self._chosen is None:  # asked for the first time on this device
            self._chosen = largest_tile(self._bytes_a_pixel(), budget(self._device))
        pixels = height * width
        return None if pixels <= self._chosen**2 and pixels < self._too_large else self._chosen

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
                if not self.automatic or used <= _LEAST:
                    raise MemoryError(f"no memory for tiles of {used} pixels") from error
            if side is None:  # tiles of a quarter of its pixels, however long it is
                self._too_large = min(self._too_large, height * width)
                side = math.isqrt(height * width)
            self._chosen = max(_LEAST, side // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    @property
    def _device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    def _bytes_a_pixel(self) -> float:
        like = next(self.denoiser.parameters()).new_zeros(1, 3, 1, 1)
        features = known_features(self.denoiser.network).items()
        blank = {name: like.new_zeros(1, width) for name, width in features}
        return bytes_a_pixel(self.denoiser, like, blank or None)

    def _model(self, side: int | None, context: Context | None) -> DenoiserLike:
        if side is None:
            return BoundDenoiser(self.denoiser, context) if context else self.denoiser
        overlap = min(_OVERLAP, side // 4)
        together = 1  # on a CPU whatever a pixel takes: the network need not be tried for it
        if self._device.type != "cpu":
            together = tiles_together(self._device, self._bytes_a_pixel(), side)
        return TiledDenoiser(self.denoiser, side, overlap, context=context, together=together)
