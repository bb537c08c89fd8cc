"""What is computed from weights alone, such as Winograd's filters: once, until they change."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["derived", "forget_changed"]

_MADE: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # weight -> (checksum, {name: made})


@cache
def _random(length: int) -> Tensor:
    return torch.randn(length, generator=torch.Generator().manual_seed(0))


def _checksum(weight: Tensor) -> Tensor:
    """Random projections ``[O]`` of the filters ``[O, ...]``; reads every number once.

    A tensor's own version counter misses what is written to its ``.data``, as when averaged weights
    are swapped in.
    """
    # Without a copy for filters that lie contiguous or channels last.
    rows = (weight if weight.is_contiguous() else weight.movedim(1, -1)).reshape(len(weight), -1)
    return rows @ _random(rows.shape[1]).to(rows)


def forget_changed(network: nn.Module) -> None:
    """Forget what was made of weights that have changed since; at the start of every run."""
    for weight in network.parameters():
        before = _MADE.get(weight)
        if before is not None and not torch.equal(before[0], _checksum(weight.detach())):
            del _MADE[weight]


def derived(weight: Tensor, name: str, make: Callable[[Tensor], Tensor]) -> Tensor:
    """``make(weight)``, made once until :func:`forget_changed`."""
    now = weight.detach()
    if weight not in _MADE:
        _MADE[weight] = (_checksum(now), {})
    made: dict[str, Tensor] = _MADE[weight][1]
    if name not in made:
        made[name] = make(now)
    return made[name]
