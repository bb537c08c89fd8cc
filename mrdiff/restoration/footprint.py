"""How much memory a network takes for a pixel, hence how large a tile may be."""

from __future__ import annotations

import copy
import math
import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mrdiff.acceleration.backends import as_built
from mrdiff.diffusion.denoiser import Denoiser

__all__ = ["Footprint", "budget", "footprint"]

_PROBE = 256  # side of the image that is tried
_ON_CPU = 1 << 30  # bytes, whatever there is: the same photo gets the same tiles everywhere
_SHARE = 0.6  # of a GPU's free memory: kernels want some of their own
_LEAST, _MOST, _STEP = 256, 2048, 64  # pixels; the most is a CPU's
_INDICES = 1 << 31  # numbers of a tensor that kernels count in 32 bits
_TOGETHER = 32


class Footprint(NamedTuple):
    """What one prediction takes for a pixel, and of how much.

    ``bytes`` are those of the memory at its peak, ``numbers`` those of the largest tensor, and
    ``room`` the bytes that there are.
    """

    device: torch.device
    bytes: float
    numbers: float
    room: float

    @property
    def pixels(self) -> int:
        """How many fit at once."""
        # Convolutions want as much again to rearrange what they are given.
        return int(min(self.room / (2 * self.bytes), _INDICES / self.numbers))

    @property
    def side(self) -> int:
        """That of the largest square tile, a multiple of 64, from 256; on a CPU to 2048."""
        side = max(_LEAST, math.isqrt(self.pixels) // _STEP * _STEP)
        return side if self.device.type == "cuda" else min(_MOST, side)

    def together(self, pixels: int) -> int:
        """How many images of so many pixels go through a network at once: on a GPU up to 32.

        Elsewhere one: on a CPU it is no faster, and the last bits depend on it.
        """
        most = min(_TOGETHER, self.pixels // pixels) if self.device.type == "cuda" else 1
        return max(1, most)


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are made and not yet freed; the most numbers of one."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.longest = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.longest = max(self.longest, tensor.numel())
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


_TRIED = weakref.WeakKeyDictionary[torch.nn.Module, dict[torch.device, Footprint]]()


@torch.no_grad()
def footprint(
    denoiser: Denoiser, like: Tensor, context: dict[str, Tensor] | None = None
) -> Footprint:
    """What one prediction takes, by trying a small image once a device.

    ``like``, ``[1, C, H, W]``, has the device and the channels to try.
    """
    known = _TRIED.setdefault(denoiser, {})
    if like.device not in known:
        image = like.new_zeros(1, like.shape[1], _PROBE, _PROBE)
        plain = copy.copy(denoiser)  # nobody sees the memory of what runs a network faster
        plain._modules = {**denoiser._modules, "network": as_built(denoiser.network)}
        with _Live() as live:
            plain(image, 0.5, image, context)
        peak, longest = (max(1, most / _PROBE**2) for most in (live.peak, live.longest))
        known[like.device] = Footprint(like.device, peak, longest, budget(like.device))
    return known[like.device]


def budget(device: torch.device) -> int:
    """Bytes that tiles may take on a device."""
    if device.type != "cuda":
        return _ON_CPU
    free, _ = torch.cuda.mem_get_info(device)
    # What torch has taken from the system and holds nothing is free as well.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(_SHARE * (free + kept))
