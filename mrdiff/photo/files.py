"""Which files are photos, in which formats they are written, and the error of one."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mrdiff.system.names import CLIPS

__all__ = ["FORMATS", "IMAGE_SUFFIXES", "OPENED", "Found", "PhotoError", "find_images"]
__all__ += ["list_images", "name_of"]

# What is written, by suffix.
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG"}
FORMATS |= {".mpo": "JPEG", ".avif": "AVIF"}
FORMATS |= {".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}
# What is opened, by Pillow's names. An EPS, however it is named, would be run by Ghostscript.
OPENED = (*set(FORMATS.values()), "GIF", "PPM", "JPEG2000")
IMAGE_SUFFIXES = frozenset({*FORMATS, ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".apng"})
IMAGE_SUFFIXES |= {".jp2", ".j2k", ".jpf", ".jpx", ".jxl"}
# Pictures all the same: nobody shall think that they were restored.
_UNREAD = frozenset({*CLIPS, ".heic", ".heif", ".hif", ".jxr", ".svg", ".psd", ".xcf", ".exr"})
_UNREAD |= {".hdr", ".tga", ".ico", ".pcx", ".dds", ".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw"}
_UNREAD |= {".orf", ".rw2", ".raf", ".pef", ".srw", ".x3f", ".raw"}


class PhotoError(ValueError):
    """A photo that cannot be read or written: one line, naming the file and the reason."""


@dataclass(frozen=True)
class Found:
    """What lies in a folder and below it.

    ``photos`` are sorted; a link to nowhere is one that cannot be read. ``unread`` are pictures of
    kinds that are not read, and clips; ``failed`` are the reasons for folders that cannot be
    looked into, and for what is named as a photo and is no file.
    """

    photos: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)

    def plus(self, other: Found) -> Found:
        """Both together, each path once."""
        photos, unread = (
            [*dict.fromkeys([*mine, *theirs])]
            for mine, theirs in ((self.photos, other.photos), (self.unread, other.unread))
        )
        return Found(photos, unread, self.failed | other.failed)

    def without(self, unwanted: Callable[[Path], bool]) -> Found:
        """All but the unwanted paths."""
        photos = [path for path in self.photos if not unwanted(path)]
        unread = [path for path in self.unread if not unwanted(path)]
        failed = {path: reason for path, reason in self.failed.items() if not unwanted(path)}
        return Found(photos, unread, failed)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _look(root: Path, found: Found) -> None:
    """Add what lies below ``root``, through links, but not round in circles."""
    # Each with the real folders that it lies in, itself the last.
    folders: list[tuple[Path, tuple[Path, ...]]] = [(root, (Path(os.path.realpath(root)),))]
    while folders:
        folder, above = folders.pop()
        try:
            with os.scandir(folder) as opened:
                entries = [entry for entry in opened if not entry.name.startswith(".")]
        except OSError as error:
            found.failed[folder] = error.strerror or str(error)
            continue
        for entry in entries:
            path = Path(entry.path)
            if not _is_folder(entry):
                _sort(path, found)
                continue
            real = Path(os.path.realpath(path)) if entry.is_symlink() else above[-1] / entry.name
            if entry.is_symlink() and any(one.is_relative_to(real) for one in above):
                found.failed[path] = "a link to a folder that it lies in"
            else:
                folders.append((path, (*above, real)))


def _sort(path: Path, found: Found) -> None:
    suffix = path.suffix.lower()
    if suffix in _UNREAD:
        found.unread.append(path)
    elif suffix in IMAGE_SUFFIXES:
        if os.path.exists(path) and not os.path.isfile(path):
            found.failed[path] = _what_is(path)
        else:
            found.photos.append(path)


def _what_is(path: Path) -> str:
    """Of what is neither a file nor a folder."""
    mode = path.stat().st_mode
    kinds = {stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    kind = next((name for test, name in kinds.items() if test(mode)), "a device")
    return f"{kind}, not a file"


def find_images(folder: Path | str) -> Found:
    """What is in ``folder`` and below it, through links to folders, too; hidden names are skipped.

    Raises:
        PhotoError: it is no folder.
    """
    root, found = Path(folder), Found()
    if not root.is_dir():
        raise PhotoError(f"{root}: no such folder")
    _look(root, found)
    found.photos.sort()
    found.unread.sort()
    return found


def list_images(folder: Path | str) -> list[Path]:
    """Every image file below ``folder``, sorted, see :func:`find_images`.

    Raises:
        PhotoError: it is no folder, or a part of it cannot be looked into.
    """
    found = find_images(folder)
    for path, reason in found.failed.items():
        raise PhotoError(f"{path}: {reason}")
    return found.photos


def name_of(path: Path, folder: Path) -> str:
    """What files belong together by: the path below ``folder`` without suffix, with slashes.

    Letters with accents are the same however they are written: macOS takes them apart (NFD).
    """
    return unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
