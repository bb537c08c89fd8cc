"""The test sets of a folder, as DA-CLIP and MaRS lay them out; free of torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mrdiff.cli.common.errors import CommandError, did_you_mean

__all__ = ["find_sets"]

_PARTS = ("LQ", "GT")
_LAYOUT = "LQ and GT, or folders <task>/LQ and <task>/GT"


def find_sets(data: Path, wanted: Sequence[str]) -> dict[str, Path]:
    """Folders of pairs by the names of their tasks, all or those ``wanted``.

    ``data`` is one itself if it has LQ and GT.

    Raises:
        CommandError: there are none, one is misspelt, or has degraded photos or clean ones alone.
    """
    if not data.is_dir():
        raise CommandError(f"--data {data}: no such folder", status=2)
    found = {Path(os.path.abspath(data)).name: data} if _is_set(data) else _sets_in(data)
    if not found:
        deeper = next((path for path in sorted(data.iterdir()) if _sets_in(path)), None)
        hint = f": is it {deeper}?" if deeper else ""
        raise CommandError(f"--data {data}: expected {_LAYOUT} in it{hint}", status=2)
    for name in wanted:
        if name not in found:
            hint = did_you_mean(name, found) or f": it has {', '.join(found)}"
            raise CommandError(f"--tasks {name}: no such folder in {data}{hint}", status=2)
    chosen = {name: path for name, path in found.items() if not wanted or name in wanted}
    for path in chosen.values():
        for part in _PARTS:
            if not (path / part).is_dir():
                cure = "each task needs LQ and GT, or is left out by --tasks"
                raise CommandError(f"--data {path}: it has no folder {part}: {cure}", status=2)
    return chosen


def _is_set(folder: Path) -> bool:
    return any((folder / part).is_dir() for part in _PARTS)


def _sets_in(folder: Path) -> dict[str, Path]:
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.name: path for path in inside if path.is_dir() and _is_set(path)}
