"""White noise as a function of a seed and a place, the same on every device.

A counter-based generator: the numbers of a field are SplitMix64 (Steele, Lea and Flood, "Fast
Splittable Pseudorandom Number Generators", OOPSLA 2014) of the seed plus their place, so that each
image of a batch has a stream of its own and none of them has a state. Devices differ in the last
bits of the inverse error function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def _signed(word: int) -> int:
    return word - (1 << 64)


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX = ((30, _signed(0xBF58476D1CE4E5B9)), (27, _signed(0x94D049BB133111EB)))
_PATCH = 1 << 17  # words of the largest patch
_MOST = 1 - 2.0**-24  # the largest float32 below 1


def _places(count: int, device: torch.device) -> Tensor:
    return torch.arange(1, count + 1, device=device) * _GAMMA


_places_of_a_patch = lru_cache(maxsize=8)(_places)


def _words(seeds: Tensor, count: int) -> Tensor:
    """64 random bits as int64 ``[B, count]`` for seeds int64 ``[B]``."""
    places = _places_of_a_patch if count <= _PATCH else _places  # photos differ, and are large
    word = places(count, seeds.device) + seeds[:, None]
    for shift, factor in _MIX:
        word ^= (word >> shift).bitwise_and_((1 << 64 - shift) - 1)  # >> repeats the sign
        word *= factor
    return word.bitwise_xor_((word >> 31).bitwise_and_((1 << 33) - 1))


def normal_field(seeds: Tensor, shape: Sequence[int]) -> Tensor:
    """Standard normal, float32 ``[B, *shape]``, for seeds int64 ``[B]``."""
    count = math.prod(shape)
    # A number of each half of a word: uniform in (-1, 1), then normal.
    halves = _words(seeds, (count + 1) // 2).view(torch.int32)[:, :count]
    between = halves.float().mul_(2.0**-31).clamp_(-_MOST, _MOST).view(-1, *shape)
    return between.erfinv_().mul_(math.sqrt(2))
