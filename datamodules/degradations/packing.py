"""What was drawn for single images, put together for a batch.

A number becomes one of ``[B]``. A tensor is a list of things of one image, ``[N, ...]``, such as
the flakes of its snow; those of all images follow one another, ``[sum N, ...]``, and
:func:`owners` says whose they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from numbers import Integral, Real
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn import functional as F

Draws: TypeAlias = dict[str, Any]
Shape: TypeAlias = tuple[int, int, int]


def packed(draws: Sequence[Draws]) -> Draws:
    """What was drawn for B images under the same names: floats as float32, integers as int64.

    Things that differ in size, such as kernels ``[1, K, K]``, get zeros around them.

    Raises:
        ValueError: names that only some images have, or what is neither a number nor ``[N, ...]``.
    """
    if some := {*chain.from_iterable(draws)} - set.intersection(*map(set, draws)):
        raise ValueError(f"draw must give every image the same names, not only some {min(some)}")
    return {name: _joined(name, [each[name] for each in draws]) for name in draws[0]}


def _joined(name: str, values: list[Any]) -> Tensor:
    if all(isinstance(value, Real) for value in values):
        whole = all(isinstance(value, Integral) for value in values)
        return torch.tensor(values, dtype=torch.int64 if whole else torch.float32)
    if not all(isinstance(value, Tensor) and value.ndim for value in values):
        raise ValueError(f"draw must give {name} as a number or a tensor [N, ...]")
    if len(values) == 1:
        return cast(Tensor, values[0])
    sides = [max(lengths) for lengths in zip(*(v.shape[1:] for v in values), strict=True)]
    return torch.cat([_widened(value, sides) for value in values])


def _widened(value: Tensor, sides: list[int]) -> Tensor:
    """``value`` ``[N, ...]`` with zeros around it, evenly, up to these sides."""
    missing = [want - have for want, have in zip(sides, value.shape[1:], strict=True)]
    if not any(missing):
        return value
    padding = [pad for m in reversed(missing) for pad in (m // 2, m - m // 2)]
    return F.pad(value, padding)


def owners(counts: Tensor, total: int) -> Tensor:
    """Whose each of ``total`` things is, ``[total]``, where image i has ``counts[i]`` of them."""
    return torch.repeat_interleave(counts, output_size=total)


def per_image(values: Tensor) -> Tensor:
    """Numbers ``[B]``, or ``[B, C]`` of channels, to be used beside images ``[B, C, H, W]``."""
    return values.reshape(*values.shape, *[1] * (4 - values.ndim))
