"""Whether a command's paths can be read and written, found out before torch is imported."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mrdiff.cli.common.errors import CommandError

__all__ = ["PIPE", "check_inputs", "check_keepable", "check_output", "writing"]

PIPE = Path("-")  # standard input or output


def check_inputs(options: argparse.Namespace, *, pipe: bool = False) -> None:
    """Refuse a checkpoint, photos, stored features or folders beside the photos that are missing.

    ``options`` have ``--checkpoint`` and ``--input``, which may be ``-`` for a ``pipe``; of the
    others, those that the command has. The CommandError names the flag.
    """
    if not options.checkpoint.exists():
        raise CommandError(f"no checkpoint at {options.checkpoint}", status=2)
    if not options.input.exists() and not (pipe and options.input == PIPE):
        raise CommandError(f"--input {options.input}: no such file or folder", status=2)
    for flag in ("daclip", "context"):
        file = getattr(options, flag, None)
        if file is not None and not file.is_file():
            raise CommandError(f"--{flag} {file}: no such file", status=2)
    for flag in ("reference", "mask"):
        folder = getattr(options, flag, None)
        if folder is not None and not folder.is_dir():
            raise CommandError(f"--{flag} {folder}: no such folder", status=2)


def check_output(output: Path, folder: Path) -> None:
    """Write a file into ``folder`` and take it away again, with the folders made for it.

    If that fails, the CommandError names ``output``, the flag's path.
    """
    ways = (folder, *folder.parents)
    missing = [way for way in ways if not os.path.exists(way)]
    nearest = next(way for way in ways if way not in missing)
    if not nearest.is_dir():
        raise CommandError(f"--output {output}: {nearest} is not a folder", status=2)
    try:
        for way in reversed(missing):
            way.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".mrdiff."):
            pass
    except OSError as error:
        message = f"--output {output}: cannot be written: {error.strerror}"
        raise CommandError(message, status=2) from error
    finally:
        for way in missing:
            with contextlib.suppress(OSError):  # it was never made
                way.rmdir()


@contextlib.contextmanager
def writing(output: Path) -> Iterator[None]:
    """An ``OSError`` becomes a CommandError that names ``output``, not a temporary file."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"--output {output}: {error.strerror or error}") from error


def check_keepable(checkpoint: Path, what: str) -> None:
    """Refuse a checkpoint whose settings cannot be written: its file or its folder is read-only."""
    file = (checkpoint / "config.yaml" if checkpoint.is_dir() else checkpoint).resolve()
    if not file.exists():
        return  # it is no checkpoint: loading it says so
    for path in (file, file.parent):
        if not os.access(path, os.W_OK):
            message = f"{checkpoint} cannot keep {what}: {path} is read-only"
            raise CommandError(message, status=2)
