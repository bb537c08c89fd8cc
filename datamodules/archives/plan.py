"""What a benchmark's archives hold and where it goes, found out before anything is written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from datamodules.archives.kinds import open_archive
from datamodules.archives.layouts import BENCHMARKS, Benchmark
from datamodules.archives.reading import Archive, Limits, Member
from datamodules.errors import DataError, report
from mrdiff.photo import IMAGE_SUFFIXES
from mrdiff.system.files import is_free

_ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")


@dataclass(frozen=True)
class Place:
    """Where a photo goes: ``SPLIT/ROLE/NAME``, which gets the suffix that the photo has."""

    split: str
    role: str
    name: str


@dataclass(frozen=True)
class Entry:
    """What goes there: a member of an archive, and the number of the rule that says so."""

    archive: Archive
    member: Member
    rule: int


@dataclass(frozen=True)
class Plan:
    """All that will be written to ``out``, found before anything is.

    ``left_out`` counts the images in the archives that the layout does not name.
    """

    benchmark: Benchmark
    out: Path
    places: dict[Place, Entry]
    left_out: int

    @property
    def size(self) -> int:
        """Bytes to write."""
        return sum(entry.member.size for entry in self.places.values())

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """How many photos for each (split, role)."""
        return Counter((place.split, place.role) for place in self.places)


def _is_photo(path: str) -> bool:
    pure = PurePosixPath(path)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in pure.parts)
    return pure.suffix.lower() in IMAGE_SUFFIXES and not hidden


def _place(benchmark: Benchmark, path: str) -> tuple[int, Place] | None:
    """The first rule that knows ``path``, and where it leads."""
    for number, rule in enumerate(benchmark.rules):
        name = rule.match(path)
        if name is not None:
            return number, Place(rule.split, rule.role, name)
    return None


def _put(places: dict[Place, Entry], place: Place, entry: Entry) -> None:
    """Take ``entry`` for ``place`` unless an earlier rule has filled it; the same rule must not."""
    taken = places.get(place)
    if taken is not None and taken.rule == entry.rule:
        both = " and ".join(f"{e.archive.path}: {e.member.path!r}" for e in (taken, entry))
        raise DataError(f"two files for {place.split}/{place.role}/{place.name}: {both}")
    if taken is None or entry.rule < taken.rule:
        places[place] = entry


def _unknown(benchmark: Benchmark, archives: Sequence[Archive]) -> DataError:
    """The error about archives in which nothing was recognised."""
    paths = [member.path for archive in archives for member in archive.members]
    tops = sorted({path.split("/")[0] + "/" * ("/" in path) for path in paths})
    nested = [path for path in paths if path.lower().endswith(_ARCHIVE_SUFFIXES)]
    found = ", ".join(tops[:8]) + (", ..." if len(tops) > 8 else "") or "nothing"
    advice = f"; it holds archives, unpack it and give {', '.join(nested[:4])}" if nested else ""
    names = ", ".join(str(archive.path) for archive in archives)
    return DataError(f"{names}: expected {benchmark.layout}; found {found}{advice}")


def _check_partners(benchmark: Benchmark, places: dict[Place, Entry]) -> None:
    """Raise :class:`DataError` about photos that have no partner, by the name in the archive."""
    other = {"LQ": "GT", "GT": "LQ"} if benchmark.paired else {}
    lonely = [
        f"{entry.member.path} has no {other[place.role]}"
        for place, entry in places.items()
        if place.role in other and replace(place, role=other[place.role]) not in places
    ]
    report(lonely, what=f"{len(lonely)} photos without a partner")


def make_plan(name: str, paths: Sequence[Path], out: Path, *, limits: Limits) -> Plan:
    """List the archives of a benchmark and find out what goes where; nothing is written.

    Args:
        name: a key of :data:`datamodules.archives.layouts.BENCHMARKS`.
        paths: its archives, or folders that they were unpacked to.
        out: the folder to make.
        limits: of each archive.

    Raises:
        DataError: an archive is refused or not of this benchmark, a photo lacks its partner, or
            ``out`` is in use.
    """
    benchmark = BENCHMARKS[name]
    if not is_free(out):
        raise DataError(f"{out}: is there and not an empty folder; give a new one")
    archives = [open_archive(path, limits) for path in paths]
    places: dict[Place, Entry] = {}
    photos = 0
    for archive in archives:
        for member in archive.members:
            if not _is_photo(member.path):
                continue
            photos += 1
            stem = PurePosixPath(archive.stem, member.path).with_suffix("").as_posix()
            found = _place(benchmark, stem)
            if found is not None:
                number, place = found
                _put(places, place, Entry(archive, member, number))
    if not any(place.role != "mask" for place in places):
        raise _unknown(benchmark, archives)
    _check_partners(benchmark, places)
    return Plan(benchmark, Path(os.path.realpath(out)), places, photos - len(places))
