"""Whether what a long command writes can be written, found out before it starts."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mrdiff.cli.common.errors import CommandError

__all__ = ["check_keepable", "check_output", "writing"]


def check_output(output: Path, folder: Path) -> None:
    """Write a file into ``folder`` and take it away again, with the folders made for it.

    Args:
        output: the path that the user gave, for the error.
        folder: where the command's files will lie.

    Raises:
        CommandError: no file can be written there.
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
    """Errors of the file system name ``output``, not the temporary file that it is written as.

    Raises:
        CommandError: for an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise CommandError(f"--output {output}: {error.strerror or error}") from error


def check_keepable(checkpoint: Path, what: str) -> None:
    """Refuse a checkpoint that nothing can be kept in: a file, or an exported folder's config.

    Raises:
        CommandError: it or its folder is read-only.
    """
    file = (checkpoint / "config.yaml" if checkpoint.is_dir() else checkpoint).resolve()
    if not file.exists():
        return  # it is no checkpoint: loading it says so
    for path in (file, file.parent):
        if not os.access(path, os.W_OK):
            message = f"{checkpoint} cannot keep {what}: {path} is read-only"
            raise CommandError(message, status=2)
