"""Whether a command's paths can be read and written, found out before torch is imported."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import unicodedata
from collections.abc import Callable, Collection, Iterator
from itertools import chain, count
from pathlib import Path

from mrdiff.checkpoints.folder import description_file
from mrdiff.checkpoints.places import why_fixed
from mrdiff.cli.common.errors import CommandError
from mrdiff.system.files import temporary_in

__all__ = [
    "PIPE",
    "check_checkpoint",
    "check_file",
    "check_files",
    "check_inputs",
    "check_keepable",
]
__all__ += ["check_output"]
__all__ += ["check_targets", "folding", "name_beside", "real", "writing"]

PIPE = Path("-")  # standard input or output


def check_checkpoint(options: argparse.Namespace) -> None:
    """Refuse a ``--checkpoint`` that is not there."""
    if not options.checkpoint.exists():
        raise CommandError(f"no checkpoint at {options.checkpoint}", status=2)


def check_inputs(options: argparse.Namespace, *, pipe: bool = False) -> None:
    """Refuse a checkpoint, photos, stored features or folders beside the photos that are missing.

    ``options`` have ``--checkpoint`` and ``--input``, some paths, which may be ``-`` for a
    ``pipe``; of the others, those that the command has. The CommandError names the flag.
    """
    check_checkpoint(options)
    for source in options.input:
        if not source.exists() and not (pipe and source == PIPE):
            raise CommandError(f"--input {source}: no such file or folder", status=2)
    check_files(options, ("daclip", "context"))
    for flag in ("reference", "mask"):
        partners = getattr(options, flag, None)
        if partners is not None and not partners.exists():
            raise CommandError(f"--{flag} {partners}: no such file or folder", status=2)


def check_files(options: argparse.Namespace, flags: Collection[str]) -> None:
    """Refuse files that are missing, of those of the flags that the command has."""
    for flag in flags:
        file = getattr(options, flag, None)
        if file is not None and not file.is_file():
            raise CommandError(f"--{flag} {file}: no such file", status=2)


def real(path: Path) -> Path:
    """Where it is, links followed; Path.resolve fails at a link to itself."""
    return Path(os.path.realpath(path))


def _nearest(folder: Path) -> Path:
    return next(way for way in (folder, *folder.parents) if os.path.exists(way))


def _check_name(folder: Path, name: str) -> None:
    """An OSError if a file system has no such names; too long a one, mostly."""
    with contextlib.suppress(FileNotFoundError):
        (folder / name).lstat()


def check_output(output: Path, folder: Path, *, flag: str = "--output") -> None:
    """Write a file into ``folder``, or where it will be made, and take it away again.

    If that fails, the CommandError names ``output``, the path of ``flag``.
    """
    nearest = _nearest(folder)
    missing = [way for way in (folder, *folder.parents) if not os.path.exists(way)]
    blocking = [way for way in missing if os.path.lexists(way)]  # links to nowhere
    if blocking or not nearest.is_dir():
        message = f"{flag} {output}: {[nearest, *blocking][-1]} is not a folder"
        raise CommandError(message, status=2)
    try:
        for way in missing:
            _check_name(nearest, way.name)
        probe = temporary_in(nearest)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        within = "" if folder in (output, output.parent) else f": {folder}"
        message = f"{flag} {output}{within}: cannot be written: {error.strerror}"
        raise CommandError(message, status=2) from error


def check_file(file: Path, *, flag: str) -> None:
    """Refuse a file that a flag wants written and that cannot be."""
    if file.is_dir():
        raise CommandError(f"{flag} {file}: is a folder, give a file", status=2)
    if not file.exists():
        check_output(file, file.parent, flag=flag)
    elif not os.access(file, os.W_OK):
        raise CommandError(f"{flag} {file}: is read-only", status=2)


def check_targets(targets: Collection[Path], output: Path | None) -> None:
    """Refuse files to be written below ``output`` whose names or folders do not allow it.

    Without an output they are beside what is read.
    """
    for folder in sorted({target.parent for target in targets}):
        check_output(output or folder, folder)
    for target in targets:
        if os.path.isdir(target):
            message = f"--output {output or target.parent}: {target} is a folder already: rename it"
            raise CommandError(message, status=2)
        try:
            _check_name(_nearest(target.parent), target.name)
        except OSError as error:
            message = f"--output {output or target.parent}: {target}: {error.strerror}"
            raise CommandError(message, status=2) from error


def folding(folder: Path) -> Callable[[str], str]:
    """What of a name tells files apart where ``folder`` is or will be: not all do by case."""
    nearest = _nearest(folder)
    probe = temporary_in(nearest)
    probe.mkdir()
    try:
        (probe / "\xe9a").touch()  # with an accent, in one character
        case, accents = (probe / "\xe9A").exists(), (probe / "e\u0301a").exists()
    finally:
        shutil.rmtree(probe, ignore_errors=True)

    def fold(name: str) -> str:
        plain = unicodedata.normalize("NFC", name) if accents else name
        return plain.casefold() if case else plain

    return fold


def name_beside(given: Path, *, again: bool) -> tuple[Path, str]:
    """The folder that a file or a folder lies in, and the name of what becomes of it, there.

    For ``rainy.jpg`` that is ``rainy_restored``, or if it is there with any suffix
    ``rainy_restored_2``; ``again`` takes it all the same.
    """
    whole = real(given) if given.is_dir() else given  # . has a name, too
    stem = whole.name if given.is_dir() else whole.stem
    there = [] if again else os.listdir(whole.parent)
    taken = {*there, *(Path(name).stem for name in there)}
    wanted = chain([f"{stem}_restored"], (f"{stem}_restored_{n}" for n in count(2)))
    return whole.parent, next(name for name in wanted if name not in taken)


@contextlib.contextmanager
def writing(output: Path) -> Iterator[None]:
    """An ``OSError`` becomes a CommandError that names ``output``, not a temporary file."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"--output {output}: {error.strerror or error}") from error


def check_keepable(checkpoint: Path, what: str) -> None:
    """Refuse a checkpoint whose settings cannot be written: read-only, or of somebody else."""
    file = description_file(checkpoint)
    if file.exists() and (reason := why_fixed(file)):  # else loading it says so
        raise CommandError(f"{checkpoint} cannot keep {what}: {reason}", status=2)
