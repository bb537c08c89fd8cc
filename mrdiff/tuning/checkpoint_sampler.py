"""The sampler among a checkpoint's settings: that of its recipe, or what was found best for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mrdiff.checkpoints.description import CheckpointError
from mrdiff.checkpoints.reading import Checkpoint, open_checkpoint
from mrdiff.checkpoints.schema import check_plain, is_sampler
from mrdiff.checkpoints.settings import write_setting
from mrdiff.solvers.gridfile import is_grid_file, read_grid
from mrdiff.solvers.presets import make_sampler
from mrdiff.solvers.run import Sampler

SAMPLER_KEY = "sampler"


def describe_sampler(sampler: Sampler) -> dict[str, Any]:
    """Plain options of which :func:`mrdiff.make_sampler` makes an equal sampler.

    A grid file becomes its times: a checkpoint names no other files.

    Raises:
        TypeError: its grid is a function, which cannot be written down.
    """
    options = dict(sampler.spec or sampler.options())
    grid = options.get("grid", "")
    if isinstance(grid, (str, os.PathLike)) and is_grid_file(os.fspath(grid)):
        grid = read_grid(grid).times
    if isinstance(grid, Mapping):
        options["grid"] = {nfe: [float(t) for t in times] for nfe, times in grid.items()}
    elif isinstance(grid, (Tensor, Sequence)) and not isinstance(grid, str):
        options["grid"] = [float(t) for t in grid]
    elif not isinstance(grid, str):
        raise TypeError("a grid that is a function cannot be written down: give its times")
    return options


def read_sampler(source: str | os.PathLike[str] | Checkpoint) -> dict[str, Any] | None:
    """The plain options of the sampler in a checkpoint or exported folder, or None.

    Raises:
        CheckpointError: it is no checkpoint, or its options make no sampler.
    """
    checkpoint = open_checkpoint(source)
    options: dict[str, Any] | None = checkpoint.config.get(SAMPLER_KEY)
    if options is None:
        return None
    try:
        if not is_sampler(options):
            raise ValueError(f"it is damaged, {options!s:.80}")
        grid = options.get("grid")
        if isinstance(grid, str) and is_grid_file(grid):
            raise ValueError(f"it names another file, {grid}")
        make_sampler(options)
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{checkpoint.path}: the sampler in it cannot be used ({error}): name another, or run "
            "mrdiff sweep --save"
        ) from error
    return options


def save_sampler(path: str | os.PathLike[str], options: Mapping[str, Any]) -> None:
    """Put a sampler's plain options into a checkpoint or exported folder.

    Raises:
        CheckpointError: ``path`` is no checkpoint, or cannot be written.
        ValueError: the options make no sampler, or are not plain values.
    """
    check_plain(options)
    make_sampler(options)
    write_setting(path, SAMPLER_KEY, dict(options))
