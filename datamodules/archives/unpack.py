"""From the archives of a benchmark to ``OUT/SPLIT/LQ`` and ``OUT/SPLIT/GT``, all or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from datamodules.archives.plan import Place, Plan
from datamodules.archives.reading import Archive
from datamodules.datasets.base import find_images
from datamodules.datasets.paired import PairedFolder, looks
from datamodules.errors import DataError, report
from mrdiff.system.files import appearing, check_room


def _write(plan: Plan, folder: Path, advance: Callable[[int], None]) -> None:
    """Write every photo byte for byte below ``folder``."""
    wanted: dict[Archive, dict[str, Place]] = {}
    for place, entry in plan.places.items():
        wanted.setdefault(entry.archive, {})[entry.member.path] = place
    for archive, targets in wanted.items():
        for path, chunks in archive.read(targets):
            place = targets[path]
            suffix = PurePosixPath(path).suffix
            target = folder / place.split / place.role / f"{place.name}{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "xb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    advance(len(chunk))


def _check_photos(folder: Path) -> None:
    broken = []
    for path in find_images(folder, role="photos"):
        try:
            looks(path)
        except DataError as error:
            broken.append(str(error))
    report(broken, what=f"{folder}: {len(broken)} broken files")


def _check(plan: Plan, folder: Path) -> None:
    """Look at the header of every photo written below ``folder``.

    Raises:
        DataError: one is unreadable, or the two of a pair differ in size or channels.
    """
    try:
        for split, role in plan.counts:
            if not plan.benchmark.paired:
                _check_photos(folder / split / role)
            elif role == "LQ":
                PairedFolder(str(folder / split / "LQ"), str(folder / split / "GT")).check()
    except DataError as error:  # the folder is about to go: name the files without it
        raise DataError(str(error).replace(f"{folder}{os.sep}", "")) from error


def unpack(plan: Plan, *, advance: Callable[[int], None]) -> None:
    """Write the photos of a plan and check them; ``plan.out`` appears only when all is well.

    ``advance`` is called with the number of bytes, as they are written.

    Raises:
        DataError: the disk is full or fails, an archive is broken, or pairs do not fit together.
    """
    try:
        check_room(plan.out, plan.size)
        with appearing(plan.out) as folder:
            _write(plan, folder, advance)
            _check(plan, folder)
    except OSError as error:
        raise DataError(f"{plan.out}: cannot be written: {error.strerror or error}") from error
