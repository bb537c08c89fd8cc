"""Checkpoints that are whole: the old one or the new one, whatever happens while it is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO

from mrdiff.system.files import replacing


def _cause(error: BaseException) -> OSError | None:
    """The system's error behind what torch raises when it cannot write on."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__context__
    return found


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write beside ``path``, bring it to the disk, put it in the place of the old file.

    Raises:
        OSError: it cannot be written; the error names ``path``.
    """
    with replacing(path, sync=True) as temporary:
        try:
            with temporary.open("wb") as file:  # of a path, torch says nothing of the cause
                torch.save(checkpoint, file)
        except RuntimeError as error:
            cause = _cause(error)
            if cause is None:
                raise
            raise cause from None


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's own, but for files of this machine, see :func:`write_checkpoint`.

    Lightning writes to TMPDIR and moves: across file systems that is a copy onto the good file.
    """

    def __init__(self) -> None:
        self.tolerant = False  # whether a save that fails is told of and not raised
        self.failed: OSError | None = None  # why the latest save failed, if it did
        self.failures: set[str] = set()  # the files whose saves failed, until someone clears it

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            write_checkpoint(checkpoint, Path(path))
            self.failed = None
        except OSError as error:
            self.failed = error
            self.failures.add(str(path))
            if not self.tolerant:
                raise
            print(f"note: {path} is not saved: {error.strerror}", file=sys.stderr, flush=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove it, but not if what was to take its place could not be written."""
        if self.failed is None:
            super().remove_checkpoint(path)


def save_whole(trainer: Trainer) -> WholeCheckpointIO | None:
    """Let ``trainer`` save so; None if the user has chosen another way of saving."""
    strategy, ours = trainer.strategy, WholeCheckpointIO()
    current = strategy._checkpoint_io  # its property would fill the gap with Lightning's
    if current is None:
        strategy.checkpoint_io = current = ours
    elif isinstance(current, _WrappingCheckpointIO):  # such as an asynchronous one, around another
        current.checkpoint_io = ours  # only taken if none is there
        current = current.checkpoint_io
    return current if isinstance(current, WholeCheckpointIO) else None
