"""The 8-bit ranges of a network, a setting of its checkpoint."""

from __future__ import annotations

import os

from mrdiff.acceleration.int8 import Ranges
from mrdiff.checkpoints.description import CheckpointError
from mrdiff.checkpoints.reading import Checkpoint, open_checkpoint
from mrdiff.checkpoints.schema import is_ranges
from mrdiff.checkpoints.settings import write_setting

__all__ = ["read_ranges", "save_ranges"]

_KEY = "int8"


def save_ranges(path: str | os.PathLike[str], ranges: Ranges) -> None:
    """Write ranges of :func:`mrdiff.acceleration.int8.input_ranges` into a checkpoint.

    Raises:
        CheckpointError: ``path`` is no checkpoint, or cannot be written.
    """
    write_setting(path, _KEY, {name: list(bounds) for name, bounds in ranges.items()})


def read_ranges(source: str | os.PathLike[str] | Checkpoint) -> Ranges:
    """The ranges of a checkpoint.

    Raises:
        CheckpointError: it is no checkpoint, or has none or broken ones.
    """
    checkpoint = open_checkpoint(source)
    path, stored = checkpoint.path, checkpoint.config.get(_KEY)
    cure = f"mrdiff quantize --checkpoint {path} --input PHOTOS"
    if not stored:
        raise CheckpointError(f"{path} has no 8-bit ranges: first {cure}")
    if not is_ranges(stored):
        raise CheckpointError(f"{path}: its 8-bit ranges are broken: {cure}")
    return {name: (float(least), float(most)) for name, (least, most) in stored.items()}
