"""Which file is written for which photo: none twice, and none that is read."""

from __future__ import annotations

import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path

from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.jobs import Job, Photo
from mrdiff.cli.common.paths import folding, name_beside, real
from mrdiff.photo import FORMATS
from mrdiff.system.text import shown

__all__ = ["alike", "place_of", "plan_beside", "plan_targets"]


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
    whole = real(path)
    try:
        folder = whole.parent.stat()
    except OSError:  # not there yet
        return (whole,)
    return folder.st_dev, folder.st_ino, whole.name


def plan_targets(photos: Sequence[Photo], output: Path, *, suffix: str | None = None) -> list[Job]:
    """What is written for each photo below ``output``: its relative path.

    ``suffix`` is one of ``FORMATS``; None for those of the photos.

    Raises:
        CommandError: a file would overwrite a photo, a reference or a mask.
    """
    names = _names_there([photo.relative for photo in photos], suffix, output)
    return _jobs(photos, [output / name for name in names])


def plan_beside(
    photos: Sequence[Photo], *, suffix: str | None = None, again: bool = False
) -> list[Job]:
    """``photo_restored.jpg`` beside ``photo.jpg``, ``rainy_restored/…`` beside ``rainy/…``.

    What is there stays, and the next is ``photo_restored_2.jpg``: but ``again``, for what a run
    left undone. Else as :func:`plan_targets`.
    """
    homes = dict[Path, tuple[Path, str]]()
    groups = dict[Path, tuple[Path, list[Photo], list[Path]]]()  # by a folder, however it is spelt
    for photo in photos:
        given = photo.given or photo.source
        if given not in homes:
            homes[given] = name_beside(given, again=again)
        folder, name = homes[given]
        _, members, names = groups.setdefault(real(folder), (folder, [], []))
        members.append(photo)
        within = photo.source.relative_to(given)
        names.append(Path(name) / within if within.name else Path(name + given.suffix))
    targets = dict[Photo, Path]()
    for folder, members, names in groups.values():
        free = _names_there(names, suffix, folder)
        targets |= {photo: folder / name for photo, name in zip(members, free, strict=True)}
    places = {place_of(target) for target in targets.values()} if again else set()
    kept = [photo for photo in photos if place_of(photo.source) not in places]
    return _jobs(kept, [targets[photo] for photo in kept])


def _jobs(photos: Sequence[Photo], targets: Sequence[Path]) -> list[Job]:
    """Photos with the files to write for them, unless those are files that are read, or one."""
    jobs = [Job(**vars(p), target=target) for p, target in zip(photos, targets, strict=True)]
    taken = {place_of(path) for job in jobs for path in job.originals}
    for job in jobs:
        if (place := place_of(job.target)) in taken:
            raise CommandError(f"--output would overwrite {job.target}: choose another", status=2)
        taken.add(place)
    return jobs
