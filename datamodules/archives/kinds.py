"""Reading zip, tar (also gz, bz2, xz) and folders, see :mod:`datamodules.archives.reading`."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from datamodules.archives.reading import CHUNK, Archive, Limits, checked_path, reading
from datamodules.errors import DataError
from mrdiff.system.untrusted import check_regular

_ENCRYPTED = 0x1
_OPENERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))
_FOREIGN = ((b"Rar!", "RAR"), (b"7z\xbc\xaf\x27\x1c", "7z"))


class _Zip(Archive):
    def _list(self) -> None:
        with zipfile.ZipFile(self.path) as archive:
            self.check_count(len(archive.infolist()))
            for info in archive.infolist():
                self._check(info)
                if not info.is_dir():
                    self.add(info.orig_filename, info.file_size, info.compress_size)

    def _check(self, info: zipfile.ZipInfo) -> None:
        kind = stat.S_IFMT(info.external_attr >> 16)
        name = info.orig_filename
        checked_path(name)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(f"member {name!r} is a link or a device; nothing was written")
        if info.flag_bits & _ENCRYPTED:
            raise DataError(f"member {name!r} is encrypted; unpack it and give the folder")
        # bzip2 and LZMA within a zip cannot be decompressed in bounded memory.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"member {name!r} is not deflated; unpack it and give the folder")

    def read(self, wanted: Collection[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
        with reading(self.path), zipfile.ZipFile(self.path) as archive:
            for info in archive.infolist():
                path = checked_path(info.orig_filename)
                if path in wanted and not info.is_dir():
                    with archive.open(info) as stream:
                        yield path, self.chunks(stream, path)


class _SmallReads:
    """A stream for ``tarfile``, which would read a header of any length at once."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if size > CHUNK:
            raise DataError(f"a header of {size} bytes")
        return self._stream.read(size)


class _Tar(Archive):
    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[IO[bytes], tarfile.TarFile]]:
        with open(self.path, "rb") as file:
            start = file.read(6)
        opener = next((o for magic, o in _OPENERS if start.startswith(magic)), open)
        with (
            opener(self.path, "rb") as stream,
            tarfile.open(fileobj=_SmallReads(stream), mode="r:") as archive,
        ):
            yield stream, archive

    def _list(self) -> None:
        compressed = self.path.stat().st_size
        with self._open() as (stream, archive):
            for number, info in enumerate(archive, start=1):
                archive.members.clear()  # type: ignore[attr-defined]  # a kilobyte for each
                path = checked_path(info.name)
                self.check_count(number)
                # Before the next header is looked for, for which this much is decompressed.
                self.check_ratio(archive.offset, compressed, "it")
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse() or info.size < 0:
                    raise DataError(f"member {path!r} is a link or a device; nothing was written")
                self.add(info.name, info.size, None)
            while stream.read(CHUNK):  # to the checksum, which comes last
                self.check_ratio(stream.tell(), compressed, "it")

    def read(self, wanted: Collection[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
        with reading(self.path), self._open() as (_, archive):
            for info in archive:
                path = checked_path(info.name)
                stream = archive.extractfile(info) if path in wanted and info.isreg() else None
                if stream is not None:
                    yield path, self.chunks(stream, path)


class _Folder(Archive):
    def _list(self) -> None:
        for folder, folders, files in os.walk(self.path, onerror=_raise):
            folders.sort()
            for name in [*folders, *sorted(files)]:
                file = Path(folder, name)
                status = file.lstat()
                path = file.relative_to(self.path).as_posix()
                if stat.S_ISREG(status.st_mode):
                    self.add(path, status.st_size, None)
                elif not stat.S_ISDIR(status.st_mode):
                    raise DataError(f"{path!r} is a link or a device; give the folder of the files")

    def read(self, wanted: Collection[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
        for path in wanted:
            with reading(self.path), open(self.path / path, "rb") as stream:
                yield path, self.chunks(stream, path)


def _raise(error: OSError) -> None:
    raise error


def open_archive(path: Path, limits: Limits) -> Archive:
    """List an archive, whatever its kind; its first bytes say which, not its name.

    Raises:
        DataError: there is no such archive, it is of no known kind, broken, or refused.
    """
    if path.is_dir():
        return _Folder(path, limits)
    if not path.exists():
        raise DataError(f"{path}: no such archive or folder")
    with reading(path):
        check_regular(path)
        with open(path, "rb") as file:
            start = file.read(512)
    for magic, kind in _FOREIGN:
        if start.startswith(magic):
            raise DataError(f"{path}: a {kind} archive; unpack it yourself and give the folder")
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _Zip(path, limits)
    if start[257:262] == b"ustar" or start.startswith(tuple(magic for magic, _ in _OPENERS)):
        return _Tar(path, limits)
    raise DataError(f"{path}: neither a zip or tar archive (gz, bz2, xz) nor a folder")
