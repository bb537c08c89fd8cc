"""How much memory a network takes for a pixel, hence how large a tile may be."""

from __future__ import annotations

import copy
import math
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mrdiff.acceleration.backends import as_built
from mrdiff.diffusion.denoiser import Denoiser

__all__ = ["budget", "bytes_a_pixel", "largest_tile", "tiles_together"]

_PROBE = 256  # side of the image that is tried
_ON_CPU = 1 << 30  # bytes, whatever there is: the same photo gets the same tiles everywhere
_SHARE = 0.6  # of a GPU's free memory: kernels want some of their own
_LEAST, _MOST, _STEP = 256, 2048, 64


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are made and not yet freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage.data_ptr()
        if key in self._known or not storage.nbytes():
            return
        self._known.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


_TRIED = weakref.WeakKeyDictionary[torch.nn.Module, dict[torch.device, float]]()


@torch.no_grad()
def bytes_a_pixel(
    denoiser: Denoiser, like: Tensor, context: dict[str, Tensor] | None = None
) -> float:
    """Memory that one prediction takes for a pixel, by trying a small image once a device.

    ``like``, ``[1, C, H, W]``, has the device and the channels to try.
    """
    known = _TRIED.setdefault(denoiser, {})
    if like.device not in known:
        image = like.new_zeros(1, like.shape[1], _PROBE, _PROBE)
        plain = copy.copy(denoiser)  # nobody sees the memory of what runs a network faster
        plain._modules = {**denoiser._modules, "network": as_built(denoiser.network)}
        with _Live() as live:
            plain(image, like.new_tensor(0.5), image, context)
        known[like.device] = live.peak / _PROBE**2
    return known[like.device]


def budget(device: torch.device) -> int:
    """Bytes that tiles may take on a device."""
    if device.type != "cuda":
        return _ON_CPU
    free, _ = torch.cuda.mem_get_info(device)
    return int(_SHARE * free)


def tiles_together(device: torch.device, bytes_each: float, side: int) -> int:
    """How many square tiles go through a network at once: as many as a GPU holds, up to 16.

    Elsewhere one: on a CPU it is no faster, and the last bits depend on it.
    """
    if device.type != "cuda":
        return 1
    return max(1, min(16, int(budget(device) / (2 * bytes_each * side**2))))


def largest_tile(bytes_each: float, room: int) -> int:
    """The side in pixels of the largest square tile that fits, a multiple of 64, 256 to 2048."""
    # Convolutions want as much again to rearrange what they are given.
    side = int(math.sqrt(room / (2 * bytes_each)))
    return max(_LEAST, min(_MOST, side // _STEP * _STEP))
