"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to write, which becomes ``path`` if nothing fails.

    Missing folders are made. A file that was there keeps its permissions, a link stays a link.

    Raises:
        OSError: it cannot be written; the error names ``path``.
    """
    target = Path(os.path.realpath(path))
    # Short, whatever the file's own name: file systems have limits.
    temporary = target.with_name(f".mrdiff.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # it was moved, or its folder could not be made
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, see :func:`replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def is_free(folder: Path) -> bool:
    """Whether it is missing or empty: nothing is lost if it is written."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``folder``, a free one, when all is written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        made = Path(temporary) / "whole"
        made.mkdir()
        yield made
        os.replace(made, folder)
