"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

_NAME = re.compile(r"\.mrdiff\.(?P<place>[0-9a-f]{8})\.(?P<pid>\d{1,9})\.[0-9a-f]{8}\.tmp")
_DAY = 24 * 3600  # seconds


@functools.cache
def _place() -> str:
    """Where a PID means a process: this machine and, in a container, its own processes."""
    spaces = "/proc/self/ns/pid"
    inside = os.stat(spaces).st_ino if os.path.exists(spaces) else ""
    return hashlib.sha256(f"{socket.gethostname()} {inside}".encode()).hexdigest()[:8]


def temporary_in(folder: Path) -> Path:
    """A name for what is being written in ``folder``, that :func:`clear_leftovers` knows.

    It is short, whatever the file's own name: file systems have limits.
    """
    return folder / f".mrdiff.{_place()}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


def _is_left(path: Path, place: str, pid: int) -> bool:
    """Whether its writer has died; of another machine's it is only known by its age."""
    if place != _place() or os.name != "posix":
        return time.time() - path.lstat().st_mtime > _DAY
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # someone else's
        return False
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # it was moved, or its folder could not be made
            path.unlink()


def clear_leftovers(folder: Path) -> None:
    """Remove what writers of this project that were killed have left in ``folder``, not below it.

    What is being written stays, by whatever process; so does what another machine wrote within a
    day. :func:`replacing` and :func:`appearing` do this for every folder that they write into.
    """
    with contextlib.suppress(OSError):  # not there, or not to be listed: then there is no need
        for name in os.listdir(folder):
            if (match := _NAME.fullmatch(name)) is None:
                continue
            with contextlib.suppress(OSError):  # another process clears, too
                if _is_left(folder / name, match["place"], int(match["pid"])):
                    _remove(folder / name)


_clear_once = functools.cache(clear_leftovers)  # a folder may get 100,000 files


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """A temporary file to write, which becomes ``path`` if nothing fails.

    Missing folders are made. A file that was there keeps its permissions, a link stays a link.
    With ``sync`` it is on the disk when this returns: a power cut leaves the old or the new file.

    Raises:
        OSError: it cannot be written; the error names ``path``.
    """
    target = Path(os.path.realpath(path))
    temporary = temporary_in(target.parent)
    try:
        if target.exists() and not target.is_file():  # a folder, or /dev/null
            raise OSError(errno.EEXIST, "it is there and is not a file")
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_once(target.parent)
        yield temporary
        if target.exists():
            shutil.copymode(target, temporary)
        if sync:
            _sync(temporary)
        os.replace(temporary, target)
        if sync and os.name == "posix":  # Windows opens no folders
            _sync(target.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        _remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, see :func:`replacing`; file names in it may be none."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def check_room(folder: Path, size: int) -> None:
    """Raise OSError, naming the folder, if ``size`` bytes do not fit where it is or will be."""
    existing = next(way for way in (folder, *folder.parents) if way.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        need = f"{size / 2**30:.2f} GiB needed, {free / 2**30:.2f} GiB free"
        raise OSError(errno.ENOSPC, f"not enough space: {need}", str(folder))


def is_free(folder: Path) -> bool:
    """Whether it is missing or empty: nothing is lost if it is written."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``folder``, a free one, when all is written."""
    temporary = temporary_in(folder.parent)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder.parent)
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, folder)
    finally:
        _remove(temporary)
