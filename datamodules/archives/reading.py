"""What every kind of archive has to fulfil; :mod:`datamodules.archives.kinds` reads them.

An archive is listed before anything is written, and listing refuses what no data set needs: paths
that lead out of the folder, links, devices, encryption, two members of one name, and sizes that
only a decompression bomb has. What a header says of a size is compared with the bytes that come.
"""

from __future__ import annotations

import contextlib
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from datamodules.errors import DataError

CHUNK = 1 << 20  # bytes that are read at once
_SUFFIXES = re.compile(r"(\.tar|\.tgz|\.tbz2?|\.txz|\.zip|\.gz|\.bz2|\.xz)+$", re.IGNORECASE)
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,  # with NotImplementedError and RecursionError, of headers that make no sense
    ValueError,
)


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most."""

    total: int = 60 << 30  # bytes of all members, uncompressed
    members: int = 1_000_000
    ratio: int = 200  # of uncompressed to compressed bytes, for what is larger than ratio_from
    ratio_from: int = 10_000_000  # bytes


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path with forward slashes, and its size in bytes."""

    path: str
    size: int


@contextlib.contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Whatever goes wrong with reading ``archive`` becomes one :class:`DataError`."""
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise DataError(f"{archive}: {error.strerror}") from error
        raise DataError(f"{archive}: broken or cut short: {error}; download it again") from error
    except _BROKEN as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{archive}: broken or cut short: {reason}; download it again") from error


def checked_path(name: str) -> str:
    """``name`` without ``.`` parts.

    Raises:
        DataError: it is absolute, leads out of the folder, or is no path on every system.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    odd = "\\" in name or "\0" in name or re.match("[A-Za-z]:", name) or name.startswith("/")
    if odd or ".." in parts:
        raise DataError(f"member {name!r} leads out of the folder; nothing was written")
    return "/".join(parts)


class Archive(ABC):
    """The files of an archive, listed and checked when it is made.

    Its methods raise :class:`DataError` if it cannot be read or is refused.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self._limits = path, limits
        self._sizes: dict[str, int] = {}
        self.total = 0  # bytes of the members so far
        try:
            with reading(path):
                self._list()
        except DataError as error:
            prefix = "" if str(error).startswith(str(path)) else f"{path}: "
            raise DataError(f"{prefix}{error}") from error

    @property
    def stem(self) -> str:
        """The name of the file without ``.zip``, ``.tar.gz`` and the like."""
        return _SUFFIXES.sub("", self.path.resolve().name)

    @property
    def members(self) -> list[Member]:
        return [Member(path, size) for path, size in self._sizes.items()]

    def add(self, name: str, size: int, compressed: int | None) -> None:
        """Note a file, of ``compressed`` bytes if that is known, or refuse it."""
        path = checked_path(name)
        if path in self._sizes:
            raise DataError(f"member {name!r} comes twice")
        self._sizes[path] = size
        self.total += size
        self.check_count(len(self._sizes))
        if self.total > self._limits.total:
            raise DataError(f"more than {self._limits.total / 2**30:g} GiB; see --max_gib")
        if compressed is not None:
            self.check_ratio(size, compressed, f"member {name!r}")

    def check_count(self, members: int) -> None:
        """Raise :class:`DataError` for more members, folders included, than a data set has."""
        if members > self._limits.members:
            raise DataError(f"more than {self._limits.members} members")

    def check_ratio(self, size: int, compressed: int, what: str) -> None:
        """Raise :class:`DataError` if that many bytes cannot be photos."""
        if size > self._limits.ratio_from and size > self._limits.ratio * compressed:
            raise DataError(f"{what} grows from {compressed} to {size} bytes: a decompression bomb")

    def chunks(self, stream: IO[bytes], path: str) -> Iterator[bytes]:
        """The bytes of a file, as many as its header says."""
        size, done = self._sizes[path], 0
        while done <= size:
            with reading(self.path):
                chunk = stream.read(CHUNK)
            done += len(chunk)
            if not chunk or done > size:
                break
            yield chunk
        if done != size:
            raise DataError(f"{self.path}: member {path!r} is not of the {size} bytes it claims")

    @abstractmethod
    def _list(self) -> None:
        """``add`` every file."""

    @abstractmethod
    def read(self, wanted: Collection[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
        """(path, chunks) of every wanted member; use up the chunks before going on."""
