"""Which photos a command reads, with their references and masks."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.paths import real
from mrdiff.photo import IMAGE_SUFFIXES, Found, find_images, list_images, name_of
from mrdiff.photo.files import OPENED
from mrdiff.system.names import CLIPS
from mrdiff.system.text import shown

__all__ = ["Job", "Photo", "describe_unread", "find_photos", "spread"]


@dataclass(frozen=True)
class Photo:
    """A degraded photo."""

    source: Path
    relative: Path  # to the input folder, or if there are several inputs to what it lies in
    reference: Path | None = None
    mask: Path | None = None  # white where the photo is whole, black in holes
    noise: str | None = None  # what its noise is drawn from, if it is not its stem
    given: Path | None = None  # itself, or the folder that was searched

    @property
    def key(self) -> str:
        """What is stored of the photo is found by its relative path without the suffix."""
        return shown(name_of(self.relative, Path()))

    @property
    def name(self) -> str:
        """What the noise is drawn from: the stem, the same for a file alone or in a folder."""
        return _stem(self.source) if self.noise is None else self.noise

    @property
    def originals(self) -> list[Path]:
        """The files that are read for it."""
        files = (self.source, self.reference, self.mask)
        return [path for path in files if path is not None]


@dataclass(frozen=True, kw_only=True)
class Job(Photo):
    """A photo to restore, and the file to write."""

    target: Path


def _partners(folder: Path | None, relatives: Sequence[Path], flag: str) -> list[Path | None]:
    """The one file in ``folder`` of each photo: of its path, at least without suffix, or stem.

    Of a single photo it may be the file itself.
    """
    if folder is None:
        return [None] * len(relatives)
    if folder.is_file():
        if len(relatives) == 1:
            return [folder]
        raise CommandError(f"{flag} {folder}: of {len(relatives)} photos, give a folder", status=2)
    matched: list[Path | None] = [None] * len(relatives)
    found = [path.relative_to(folder) for path in list_images(folder)]
    ways: list[Callable[[Path], object]] = [Path, _bare, partial(name_of, folder=Path()), _stem]
    for way in ways:
        counts = Counter(map(way, found))
        only = {way(path): folder / path for path in found if counts[way(path)] == 1}
        matched = [m or only.get(way(p)) for m, p in zip(matched, relatives, strict=True)]
    if not any(matched):
        message = f"{flag} {folder}: no file there has the stem of any input"
        raise CommandError(message, status=2)
    return matched


def _bare(path: Path) -> Path:
    return path.with_suffix("")


def _stem(path: Path) -> str:
    return name_of(path, path.parent)


def _only(source: Path) -> Found:
    """A single file, if it is named as a photo."""
    suffix = source.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return Found([source])
    if suffix in CLIPS:
        return Found(unread=[source])
    try:
        with Image.open(source, formats=OPENED) as image:
            what = f"it holds a {image.format}, but is not named so: rename it"
    except Exception:  # of broken files Pillow raises nearly every exception there is
        what = "not an image file that is read"
    kinds = ", ".join(sorted(IMAGE_SUFFIXES))
    return Found(failed={source: f"{what}; photos are {kinds}"})


def describe_unread(paths: Sequence[Path]) -> list[str]:
    """A line for each kind of pictures that are not read, with how many there are."""
    kinds: dict[str, list[Path]] = {}
    for path in paths:
        kinds.setdefault(path.suffix.lower(), []).append(path)
    lines = []
    for kind, members in kinds.items():
        names = ", ".join(str(path) for path in members[:3]) + (", …" if members[3:] else "")
        why = "clips are restored one by one" if kind in CLIPS else "they are not read"
        lines.append(f"{len(members)} {kind}: {why}: {names}")
    return lines


def _tell(found: Found) -> None:
    for path, reason in found.failed.items():
        print(f"left out: {shown(path)}: {reason}", file=sys.stderr)
    for line in describe_unread(found.unread):
        print(f"left out: {shown(line)}", file=sys.stderr)


def find_photos(
    *sources: Path,
    reference: Path | None = None,
    mask: Path | None = None,
    output: Path | None = None,
    noise: str | None = None,
    passed_over: Callable[[Found], None] = _tell,
) -> list[Photo]:
    """The photos of files and folders, with their partners in two other folders.

    Of several ``sources`` none stops the others: what is no photo is passed over. Files below
    ``output`` are no inputs: it may lie within the input folder. ``noise`` is what that of all
    photos is drawn from; None draws it anew for each. ``passed_over`` is told what cannot be read.

    Raises:
        CommandError: no photo, or a folder without a partner of any.
    """
    relatives, givens, found = dict[Path, Path](), dict[Path, Path](), Found()
    for source in sources:
        here = _look_into(source, output)
        if len(sources) > 1 and source.is_dir() and not here.photos:
            here.failed.setdefault(source, "no images in this folder")
        found = found.plus(here)
        folder = source if source.is_dir() else source.parent
        within = Path(real(source).name if source.is_dir() and len(sources) > 1 else "")
        for path in here.photos:
            relatives.setdefault(path, within / path.relative_to(folder))
            givens.setdefault(path, source)
    if not found.photos:
        why = [f"{path}: {reason}" for path, reason in found.failed.items()]
        folders = [str(source) for source in sources if source.is_dir()]
        head = [f"{', '.join(folders)}: no images in this folder"] if folders else []
        message = "; ".join([*head, *why, *describe_unread(found.unread)])
        raise CommandError(f"--input {message}", status=2)
    passed_over(found)
    places = [relatives[path] for path in found.photos]
    references = _partners(reference, places, "--reference")
    masks = _partners(mask, places, "--mask")
    parts = zip(found.photos, places, references, masks, strict=True)
    return [Photo(*part, noise, givens[part[0]]) for part in parts]


def _look_into(source: Path, output: Path | None) -> Found:
    """A file, or what lies in a folder and not in the ``output``."""
    if not source.is_dir():
        if not source.is_file():
            raise CommandError(f"--input {source}: neither a file nor a folder", status=2)
        return _only(source)
    found = find_images(source)
    if output is None or real(source).is_relative_to(real(output)):
        return found
    written = real(output)
    return found.without(lambda path: written in (real(path), *real(path).parents))


def spread(photos: Sequence[Photo], count: int) -> list[Photo]:
    """``count`` of them at equal distances, or all."""
    count = min(count, len(photos))
    return [photos[(2 * i + 1) * len(photos) // (2 * count)] for i in range(count)]
