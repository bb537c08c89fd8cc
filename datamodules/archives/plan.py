"""What a benchmark's archives hold and where it goes, found out before anything is written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datamodules.archives.kinds import open_archive
from datamodules.archives.layouts import BENCHMARKS, Benchmark
from datamodules.archives.reading import Archive, Limits
from datamodules.errors import DataError, report
from mrdiff.photo import IMAGE_SUFFIXES

_ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")


@dataclass(frozen=True)
class Place:
    """Where a photo goes: ``SPLIT/ROLE/NAME``, which gets the suffix that the photo has."""

    split: str
    role: str
    name: str


@dataclass(frozen=True)
class Source:
    """What goes there: a member of an archive, and the number of the rule that says so."""

    archive: Archive
    path: str
    size: int
    rule: int


@dataclass(frozen=True)
class Plan:
    """All that will be written, found before anything is.

    Args:
        benchmark: whose archives these are.
        out: the folder to make.
        places: the source of every photo.
        left_out: images in the archives that the layout does not name.
    """

    benchmark: Benchmark
    out: Path
    places: dict[Place, Source]
    left_out: int

    @property
    def size(self) -> int:
        """Bytes to write."""
        return sum(source.size for source in self.places.values())

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


def _put(places: dict[Place, Source], place: Place, source: Source) -> None:
    """Take ``source`` for ``place`` unless an earlier rule has filled it.

    Raises:
        DataError: the same rule has.
    """
    taken = places.get(place)
    if taken is not None and taken.rule == source.rule:
        both = f"{taken.archive.path}: {taken.path!r} and {source.archive.path}: {source.path!r}"
        raise DataError(f"two files for {place.split}/{place.role}/{place.name}: {both}")
    if taken is None or source.rule < taken.rule:
        places[place] = source


def _unknown(benchmark: Benchmark, archives: Sequence[Archive]) -> DataError:
    """The error about archives in which nothing was recognised."""
    paths = [member.path for archive in archives for member in archive.members]
    tops = sorted({path.split("/")[0] + "/" * ("/" in path) for path in paths})
    nested = [path for path in paths if path.lower().endswith(_ARCHIVE_SUFFIXES)]
    found = ", ".join(tops[:8]) + (", ..." if len(tops) > 8 else "") or "nothing"
    advice = f"; it holds archives, unpack it and give {', '.join(nested[:4])}" if nested else ""
    names = ", ".join(str(archive.path) for archive in archives)
    return DataError(f"{names}: expected {benchmark.layout}; found {found}{advice}")


def _check_partners(benchmark: Benchmark, places: dict[Place, Source]) -> None:
    """Raise :class:`DataError` about photos that have no partner, by the name in the archive."""
    if not benchmark.paired:
        return
    other = {"LQ": "GT", "GT": "LQ"}
    lonely = [
        f"{source.path} has no {other[place.role]}"
        for place, source in places.items()
        if place.role in other and Place(place.split, other[place.role], place.name) not in places
    ]
    report(lonely, what=f"{len(lonely)} photos without a partner")


def make_plan(name: str, paths: Sequence[Path], out: Path, *, limits: Limits) -> Plan:
    """List the archives of a benchmark and find out what goes where; nothing is written.

    Args:
        name: of the benchmark, a key of :data:`datamodules.archives.layouts.BENCHMARKS`.
        paths: its archives, or folders that they were unpacked to.
        out: the folder to make; it is missing or empty.
        limits: what an archive may hold at most.

    Raises:
        DataError: an archive is refused or not of this benchmark, a photo lacks its partner, or
            ``out`` is in use.
    """
    benchmark = BENCHMARKS[name]
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out}: is there and not an empty folder; give a new one")
    archives = [open_archive(path, limits) for path in paths]
    places: dict[Place, Source] = {}
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
                _put(places, place, Source(archive, member.path, member.size, number))
    if not any(place.role != "mask" for place in places):
        raise _unknown(benchmark, archives)
    _check_partners(benchmark, places)
    return Plan(benchmark, Path(os.path.realpath(out)), places, photos - len(places))
