"""Which photos a command reads, with their references and masks, and what it writes for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mrdiff.cli.common.errors import CommandError
from mrdiff.photo import FORMATS, IMAGE_SUFFIXES, list_images

__all__ = ["Job", "Photo", "find_photos", "plan_targets", "spread"]


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
        return self.relative.with_suffix("").as_posix()

    @property
    def name(self) -> str:
        """What the noise is drawn from: the stem, the same for a file alone or in a folder."""
        return self.source.stem if self.noise is None else self.noise


@dataclass(frozen=True, kw_only=True)
class Job(Photo):
    """A photo to restore, and the file to write."""

    target: Path


def _inside(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents


def _partners(folder: Path | None, relatives: Sequence[Path], flag: str) -> list[Path | None]:
    """The file in ``folder`` of each photo, matched by relative path, then by stem."""
    if folder is None:
        return [None] * len(relatives)
    found = list_images(folder)
    by_path = {path.relative_to(folder).with_suffix(""): path for path in found}
    counts = Counter(path.stem for path in found)
    by_stem = {path.stem: path for path in found if counts[path.stem] == 1}
    matched = [by_path.get(path.with_suffix("")) or by_stem.get(path.stem) for path in relatives]
    if not any(matched):
        message = f"{flag} {folder}: no file there has the stem of any input"
        raise CommandError(message, status=2)
    return matched


def find_photos(
    source: Path,
    *,
    reference: Path | None = None,
    mask: Path | None = None,
    output: Path | None = None,
    noise: str | None = None,
) -> list[Photo]:
    """The photos of a file or folder, with their partners in two other folders.

    Files below ``output`` are no inputs: it may lie within the input folder. ``noise`` is what
    that of all photos is drawn from; None draws it anew for each.

    Raises:
        CommandError: no photo, or a folder without a partner of any.
    """
    if source.is_file():
        root, sources = source.parent, [source]
        if source.suffix.lower() not in IMAGE_SUFFIXES:
            raise CommandError(f"--input {source}: not an image file", status=2)
    else:
        root, sources = source, list_images(source)
        if output is not None and _inside(output, source):
            sources = [path for path in sources if not _inside(path, output)]
    if not sources:
        raise CommandError(f"--input {source}: no images in this folder", status=2)
    relatives = [path.relative_to(root) for path in sources]
    references = _partners(reference, relatives, "--reference")
    masks = _partners(mask, relatives, "--mask")
    parts = zip(sources, relatives, references, masks, strict=True)
    return [Photo(*part, noise) for part in parts]


def _names(relatives: Sequence[Path], suffix: str | None) -> list[Path]:
    """What cannot be written as it was read, such as a GIF, becomes PNG."""
    wanted = [suffix or (p.suffix if p.suffix.lower() in FORMATS else ".png") for p in relatives]
    plain = [path.with_suffix(end) for path, end in zip(relatives, wanted, strict=True)]
    taken = Counter(plain)
    # a.gif beside a.png would overwrite each other: take the whole name.
    return [
        name if name == path or taken[name] == 1 else path.with_name(path.name + name.suffix)
        for path, name in zip(relatives, plain, strict=True)
    ]


def plan_targets(photos: Sequence[Photo], output: Path, *, suffix: str | None = None) -> list[Job]:
    """What is written for each photo below ``output``: its relative path.

    ``suffix`` is one of ``FORMATS``; None for those of the photos.

    Raises:
        CommandError: a file would overwrite a photo, a reference or a mask.
    """
    names = _names([photo.relative for photo in photos], suffix)
    jobs = [
        Job(**vars(photo), target=output / name) for photo, name in zip(photos, names, strict=True)
    ]
    files = (path for job in jobs for path in (job.source, job.reference, job.mask))
    originals = {path.resolve() for path in files if path is not None}
    for job in jobs:
        if job.target.resolve() in originals:
            raise CommandError(f"--output would overwrite {job.target}: choose another", status=2)
    return jobs


def spread(photos: Sequence[Photo], count: int) -> list[Photo]:
    """``count`` of them at equal distances, or all."""
    count = min(count, len(photos))
    return [photos[(2 * i + 1) * len(photos) // (2 * count)] for i in range(count)]
