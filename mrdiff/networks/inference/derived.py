"""What is computed from weights alone: once, until they change."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["derived"]

_KEPT: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _state(weight: Tensor) -> tuple[int, int]:
    """Changes when the weight's numbers do: in place, or by another storage."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


def derived(weight: Tensor, name: str, make: Callable[[Tensor], Tensor]) -> Tensor:
    """``make(weight)``, kept as long as the weight lives and does not change.

    Args:
        weight: of a network.
        name: of what is made of it.
        make: makes it.
    """
    state = _state(weight)
    before, kept = _KEPT.get(weight, (None, {}))
    if before != state:
        kept = {}
        _KEPT[weight] = (state, kept)
    if name not in kept:
        kept[name] = make(weight.detach())
    made: Tensor = kept[name]
    return made
