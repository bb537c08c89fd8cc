"""The 8-bit ranges of a network, kept in its checkpoint."""

from __future__ import annotations

import os

from mrdiff.acceleration.int8 import Ranges
from mrdiff.checkpoints.description import CheckpointError
from mrdiff.checkpoints.keeping import keep
from mrdiff.checkpoints.reading import read_config

__all__ = ["read_ranges", "save_ranges"]

_KEY = "int8"


def save_ranges(path: str | os.PathLike[str], ranges: Ranges) -> None:
    """Keep the ranges of :func:`mrdiff.acceleration.int8.input_ranges` in a checkpoint.

    Raises:
        CheckpointError: ``path`` is no checkpoint, or cannot be written.
    """
    keep(path, _KEY, {name: list(bounds) for name, bounds in ranges.items()})


def read_ranges(path: str | os.PathLike[str]) -> Ranges:
    """The ranges that a checkpoint or exported folder keeps.

    Raises:
        CheckpointError: it is no checkpoint, it keeps none, or what it keeps are no ranges.
    """
    kept = read_config(path).get(_KEY)
    cure = f"mrdiff quantize --checkpoint {path} --input PHOTOS"
    if not kept:
        raise CheckpointError(f"{path} has no 8-bit ranges: first {cure}")
    try:
        return {str(name): (float(least), float(most)) for name, (least, most) in kept.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its 8-bit ranges are broken: {cure}") from error
