"""What is built of a description is no larger than the weights that were stored for it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration

from mrdiff.checkpoints.description import CheckpointError

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def _stored(weights: Mapping[str, Tensor]) -> int:
    """Bytes behind tensors, those that share them counted once."""
    storages = [value.untyped_storage() for value in weights.values()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _fault(value: Any) -> str | None:
    """Why something is no weight of a network."""
    if (
        not isinstance(value, Tensor)
        or value.layout != torch.strided
        or value.is_meta
        or value.is_nested
    ):
        return "is no dense tensor"
    if type(value) not in (Tensor, nn.Parameter) or value.dtype not in (*_FLOATS, *_WHOLE):
        return f"is of the wrong kind, {value.dtype}".replace("torch.", "")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return "repeats few numbers as many"
    # Extremes in one pass without a copy; not a number is the extreme of all.
    if value.is_floating_point() and value.numel():
        least, most = value.detach().aminmax()
        if not bool(least.isfinite() & most.isfinite()):
            return "is not finite: the training that wrote it had failed"
    return None


def check_weights(weights: Mapping[str, Any]) -> None:
    """Raise CheckpointError, which names it, for a weight that is no dense tensor or not finite."""
    for name, value in weights.items():
        if fault := _fault(value):
            raise CheckpointError(f"its weight {name} {fault}")


def check_stored(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError if there are more weights than a file has bytes."""
    if _stored(weights) > path.stat().st_size:
        raise CheckpointError("its weights overlap in the file")


@contextlib.contextmanager
def bounded_by(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Stop the building of networks that get many times larger than ``weights``.

    Layers are counted as they are put together, before their numbers are drawn. There is room for
    what a constructor makes and drops, and for what has no weights.

    Raises:
        CheckpointError: from within the constructor that builds on.
    """
    numbers, parts = _stored(weights) + 1_000_000, 1000 + 50 * len(weights)
    thread = threading.get_ident()

    def count(_: nn.Module, name: str, added: Any) -> None:
        nonlocal numbers, parts
        if threading.get_ident() == thread:
            numbers -= added.numel() if isinstance(added, Tensor) else 0
            parts -= 1
            if numbers < 0 or parts < 0:
                raise CheckpointError("its description makes a network larger than its weights")

    with contextlib.ExitStack() as stack:
        for register in (
            registration.register_module_parameter_registration_hook,
            registration.register_module_buffer_registration_hook,
            registration.register_module_module_registration_hook,
        ):
            stack.callback(register(count).remove)
        yield
