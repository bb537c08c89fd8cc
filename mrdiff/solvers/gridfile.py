"""Grids of times as small YAML files, with the process that they were made for."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from mrdiff.checkpoints.description import describe
from mrdiff.diffusion.path import GaussianPath
from mrdiff.system.files import write_text
from mrdiff.system.untrusted import read_yaml

_KEYS = ("times", "process", "made")


class GridFileError(ValueError):
    """A grid file that cannot be read or does not fit; one line naming the file."""


def is_grid_file(grid: str) -> bool:
    """Whether a grid's name is that of a file."""
    return Path(grid).suffix.lower() in (".yaml", ".yml")


@dataclass(frozen=True)
class GridFile:
    """For each NFE its ``nfe + 1`` times from 1 to 0; called as ``(process, nfe)``, a grid.

    ``process`` is the description of that which the times are of, ``made`` for people to read.
    """

    times: Mapping[int, list[float]]
    process: Any
    made: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""

    def for_process(self, process: GaussianPath) -> Mapping[int, list[float]]:
        """The times by NFE; GridFileError if they are of another process."""
        mine = describe(process)
        if mine != self.process:
            raise GridFileError(
                f"{self.path}: its times are of {_short(self.process)}, but the model has "
                f"{_short(mine)}: make a grid for this model"
            )
        return self.times

    def __call__(self, process: GaussianPath, nfe: int) -> Tensor:
        times = self.for_process(process)
        if nfe not in times:
            known = ", ".join(map(str, sorted(times)))
            raise GridFileError(f"{self.path} has no times for nfe={nfe}, only for {known}")
        return torch.tensor(times[nfe], dtype=torch.float64)


def _short(process: Any) -> str:
    """A process's description in a few words."""
    if isinstance(process, float):
        return f"{process:.5g}"
    if not isinstance(process, dict) or "class_path" not in process:
        return str(process)[:40]
    arguments = process.get("init_args") or {}
    inner = ", ".join(f"{key}={_short(value)}" for key, value in arguments.items())
    return f"{process['class_path'].rpartition('.')[2]}({inner})"


def _check(content: Any, path: str) -> GridFile:
    if not isinstance(content, dict) or not {"times", "process"} <= set(content) <= set(_KEYS):
        raise GridFileError(f"{path} is not a grid file: its keys must be {', '.join(_KEYS)}")
    times = content["times"]
    plain = isinstance(times, dict) and all(
        type(nfe) is int and nfe > 0 and isinstance(row, list) and len(row) == nfe + 1
        for nfe, row in times.items()
    )
    if not plain or not times:
        raise GridFileError(f"{path}: times must map each nfe to its nfe + 1 times")
    for nfe, row in times.items():
        if any(type(t) not in (int, float) for t in row):
            raise GridFileError(f"{path}: the times of a grid are numbers, got {row!s:.200}")
        falls = all(later < earlier for earlier, later in itertools.pairwise(row))
        if not falls or row[0] != 1 or row[-1] != 0:
            fault = f"the times for nfe={nfe} must fall from 1 to 0, got {row!s:.200}"
            raise GridFileError(f"{path}: {fault}")
    rows = {nfe: [float(t) for t in row] for nfe, row in times.items()}
    return GridFile(rows, content["process"], content.get("made") or {}, path)


def read_grid(path: str | os.PathLike[str]) -> GridFile:
    """Read a grid file; GridFileError if it is missing, not YAML, or holds something else."""
    name = os.fspath(path)
    try:
        content = read_yaml(path)
    except OSError as error:
        raise GridFileError(f"{name}: {error.strerror}") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise GridFileError(f"{name} is not readable YAML: {reason}") from error
    return _check(content, name)


def write_grid(
    path: str | os.PathLike[str],
    times: Mapping[int, list[float]],
    process: GaussianPath,
    *,
    made: Mapping[str, Any],
) -> None:
    """Write a grid file with what :class:`GridFile` has, whole or not at all.

    Raises:
        GridFileError: the times are none that could be read again.
    """
    times = dict(sorted(times.items()))
    content = {"times": times, "process": describe(process), "made": dict(made)}
    _check(content, os.fspath(path))
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)
    write_text(Path(path), text)
