"""From the archives of a benchmark to ``OUT/SPLIT/LQ`` and ``OUT/SPLIT/GT``, all or nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from PIL import Image

from datamodules.archives.plan import Place, Plan
from datamodules.archives.reading import Archive
from datamodules.datasets.base import find_images
from datamodules.datasets.paired import PairedFolder
from datamodules.errors import DataError, report


def _check_space(folder: Path, size: int) -> None:
    """Raise :class:`DataError` if ``size`` bytes do not fit where ``folder`` will be."""
    existing = next(way for way in (folder, *folder.parents) if way.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        need = f"{size / 2**30:.2f} GiB needed, {free / 2**30:.2f} GiB free"
        raise DataError(f"{folder}: not enough space: {need}")


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}") from error


def _write(plan: Plan, folder: Path, advance: Callable[[int], None]) -> None:
    """Write every photo byte for byte below ``folder``."""
    wanted: dict[Archive, dict[str, Place]] = {}
    for place, source in plan.places.items():
        wanted.setdefault(source.archive, {})[source.path] = place
    for archive, targets in wanted.items():
        for path, chunks in archive.read(targets):
            place = targets[path]
            suffix = PurePosixPath(path).suffix
            target = folder / place.split / place.role / f"{place.name}{suffix}"
            with _writing(plan.out):
                target.parent.mkdir(parents=True, exist_ok=True)
                file = open(target, "xb")  # noqa: SIM115  (closed below)
            with file:
                for chunk in chunks:
                    with _writing(plan.out):
                        file.write(chunk)
                    advance(len(chunk))


def _check_photos(folder: Path) -> None:
    """Raise :class:`DataError` about files in ``folder`` that are no images."""
    broken = []
    for path in find_images(folder, role="photos"):
        try:
            with Image.open(path):
                pass
        except (OSError, ValueError, SyntaxError):  # what Pillow raises about broken headers
            broken.append(f"{path} is not a readable image")
    report(broken, what=f"{folder}: {len(broken)} broken files")


def _check(plan: Plan, folder: Path) -> None:
    """Look at the header of every photo written below ``folder``.

    Raises:
        DataError: one is unreadable, or the two of a pair differ in size or channels.
    """
    roles: dict[str, set[str]] = {}
    for split, role in plan.counts:
        roles.setdefault(split, set()).add(role)
    try:
        for split, present in roles.items():
            if plan.benchmark.paired:
                PairedFolder(str(folder / split / "LQ"), str(folder / split / "GT")).check()
                continue
            for role in present:
                _check_photos(folder / split / role)
    except DataError as error:  # the folder is about to go: name the files without it
        raise DataError(str(error).replace(f"{folder}{os.sep}", "")) from error


def unpack(plan: Plan, *, advance: Callable[[int], None]) -> None:
    """Write the photos of a plan and check them; ``plan.out`` appears only when all is well.

    Args:
        plan: what to write.
        advance: called with the number of bytes, as they are written.

    Raises:
        DataError: the disk is full or fails, an archive is broken, or pairs do not fit together.
    """
    _check_space(plan.out, plan.size)
    parent = plan.out.parent
    with _writing(plan.out):
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f".{plan.out.name}."))
    try:
        folder = temporary / "out"
        _write(plan, folder, advance)
        _check(plan, folder)
        with _writing(plan.out):
            if plan.out.exists():
                plan.out.rmdir()
            os.replace(folder, plan.out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
