"""Which photos a command reads, with their references and masks, and what it writes for them."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path

from PIL import Image

from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.paths import folding
from mrdiff.photo import FORMATS, IMAGE_SUFFIXES, Found, find_images, list_images, name_of
from mrdiff.photo.files import OPENED
from mrdiff.system.names import CLIPS
from mrdiff.system.text import shown

__all__ = [
    "Job",
    "Photo",
    "alike",
    "describe_unread",
    "find_photos",
    "place_of",
    "plan_targets",
    "spread",
]


@dataclass(frozen=True)
class Photo:
    """A degraded photo."""

    source: Path
    relative: Path  # to the input folder
    reference: Path | None = None
    mask: Path | None = None  # white where the photo is whole, black in holes
    noise: str | None = None  # what its noise is drawn from, if it is not its stem

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


def _real(path: Path) -> Path:
    """Path.resolve fails at a link to itself."""
    return Path(os.path.realpath(path))


def _partners(folder: Path | None, relatives: Sequence[Path], flag: str) -> list[Path | None]:
    """The one file in ``folder`` of each photo: of its path, at least without suffix, or stem."""
    if folder is None:
        return [None] * len(relatives)
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


def _only(source: Path) -> list[Path]:
    """A single file, if it is named as a photo."""
    if not source.is_file():
        raise CommandError(f"--input {source}: neither a file nor a folder", status=2)
    if source.suffix.lower() in IMAGE_SUFFIXES:
        return [source]
    try:
        with Image.open(source, formats=OPENED) as image:
            what = f"it holds a {image.format}, but is not named so: rename it"
    except Exception:  # of broken files Pillow raises nearly every exception there is
        what = "not an image file that is read"
    kinds = ", ".join(sorted(IMAGE_SUFFIXES))
    raise CommandError(f"--input {source}: {what}; photos are {kinds}", status=2)


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
    source: Path,
    *,
    reference: Path | None = None,
    mask: Path | None = None,
    output: Path | None = None,
    noise: str | None = None,
    passed_over: Callable[[Found], None] = _tell,
) -> list[Photo]:
    """The photos of a file or folder, with their partners in two other folders.

    Files below ``output`` are no inputs: it may lie within the input folder. ``noise`` is what
    that of all photos is drawn from; None draws it anew for each. ``passed_over`` is told what of
    a folder is no photo that can be read.

    Raises:
        CommandError: no photo, or a folder without a partner of any.
    """
    if source.is_dir():
        root, found = source, find_images(source)
    else:
        root, found = source.parent, Found(_only(source))
    if output is not None and not _real(root).is_relative_to(_real(output)):
        written = _real(output)
        found = found.without(lambda path: written in (_real(path), *_real(path).parents))
    if not found.photos:
        why = [f"{path}: {reason}" for path, reason in found.failed.items()]
        message = "; ".join(["no images in this folder", *why, *describe_unread(found.unread)])
        raise CommandError(f"--input {source}: {message}", status=2)
    passed_over(found)
    relatives = [path.relative_to(root) for path in found.photos]
    references = _partners(reference, relatives, "--reference")
    masks = _partners(mask, relatives, "--mask")
    parts = zip(found.photos, relatives, references, masks, strict=True)
    return [Photo(*part, noise) for part in parts]


def _names(
    relatives: Sequence[Path], suffix: str | None, fold: Callable[[str], str] = str
) -> list[Path]:
    """What cannot be written as it was read, such as a GIF, becomes PNG. No name is given twice.

    a.gif beside a.png becomes a.gif.png, or if that is there as well a.gif.2.png. ``fold`` says
    which names are one.
    """
    wanted = [suffix or (p.suffix if p.suffix.lower() in FORMATS else ".png") for p in relatives]
    plain = [path.with_suffix(end) for path, end in zip(relatives, wanted, strict=True)]
    counts = Counter(fold(str(name)) for name in plain)
    taken = {fold(str(folder)) for path in relatives for folder in path.parents}
    names = dict[int, Path]()
    # Those that keep their names come first.
    for index in sorted(range(len(plain)), key=lambda i: plain[i] != relatives[i]):
        path, name = relatives[index], plain[index]
        kept = [name] if name == path or counts[fold(str(name))] == 1 else []
        numbered = (path.with_name(f"{path.name}.{n}{name.suffix}") for n in count(2))
        every = chain(kept, [path.with_name(path.name + name.suffix)], numbered)
        names[index] = next(one for one in every if fold(str(one)) not in taken)
        taken.add(fold(str(names[index])))
    return [names[index] for index in range(len(plain))]


def alike(name: str) -> str:
    """What names have in common that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()


def _names_there(relatives: Sequence[Path], suffix: str | None, output: Path) -> list[Path]:
    """Names that are different files in the file system of ``output``, too."""
    names = _names(relatives, suffix)
    if len({alike(str(name)) for name in names}) == len(names):
        return names
    safe = _names(relatives, suffix, folding(output))
    for name, other in zip(names, safe, strict=True):
        if name != other:
            where = f"{output} does not tell {shown(name)} from another"
            print(f"note: {where}: it becomes {shown(other)}", file=sys.stderr)
    return safe


def place_of(path: Path) -> tuple[object, ...]:
    """The same for two spellings of one place, be it written through links."""
    real = _real(path)
    try:
        folder = real.parent.stat()
    except OSError:  # not there yet
        return (real,)
    return folder.st_dev, folder.st_ino, real.name


def plan_targets(photos: Sequence[Photo], output: Path, *, suffix: str | None = None) -> list[Job]:
    """What is written for each photo below ``output``: its relative path.

    ``suffix`` is one of ``FORMATS``; None for those of the photos.

    Raises:
        CommandError: a file would overwrite a photo, a reference or a mask.
    """
    names = _names_there([photo.relative for photo in photos], suffix, output)
    jobs = [
        Job(**vars(photo), target=output / name) for photo, name in zip(photos, names, strict=True)
    ]
    originals = {place_of(path) for job in jobs for path in job.originals}
    for job in jobs:
        if place_of(job.target) in originals:
            raise CommandError(f"--output would overwrite {job.target}: choose another", status=2)
    return jobs


def spread(photos: Sequence[Photo], count: int) -> list[Photo]:
    """``count`` of them at equal distances, or all."""
    count = min(count, len(photos))
    return [photos[(2 * i + 1) * len(photos) // (2 * count)] for i in range(count)]
