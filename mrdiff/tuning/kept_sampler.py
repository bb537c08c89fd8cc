"""The sampler that a checkpoint was found to be best with, kept in its description."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mrdiff.checkpoints.description import CheckpointError
from mrdiff.checkpoints.keeping import check_plain, keep
from mrdiff.checkpoints.reading import read_config
from mrdiff.solvers.baselines import BaselineSampler
from mrdiff.solvers.sampler import MRSampler
from mrdiff.solvers.timegrid import Grid

SAMPLER_KEY = "sampler"
DEFAULT_NAME, DEFAULT_NFE = "mr-ode-2", 5


def build_sampler(options: Mapping[str, Any]) -> MRSampler | BaselineSampler:
    """The sampler of plain options: those of :class:`MRSampler`, or ``name`` and ``nfe``.

    Raises:
        ValueError: an option is unknown or has a wrong value.
    """
    try:
        if "name" in options:
            return MRSampler.preset(**options)
        return MRSampler(**options)
    except TypeError as error:
        raise ValueError(f"sampler options {dict(options)}: {error}") from error


def resolve_sampler(
    stored: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    nfe: int | None = None,
    grid: Grid | None = None,
    temperature: float | None = None,
) -> MRSampler | BaselineSampler:
    """The sampler that was asked for; what was not said is the checkpoint's, then mr-ode-2 at 5.

    Args:
        stored: options kept in the checkpoint, used if no name is given.
        name: of :data:`mrdiff.names.SAMPLERS`.
        nfe: number of network calls.
        grid: instead of the sampler's own.
        temperature: instead of the sampler's own.

    Raises:
        ValueError: an unknown name, a value out of range, or a grid for a baseline.
    """
    options = {"name": name} if name is not None else dict(stored or {"name": DEFAULT_NAME})
    changes = {"nfe": nfe, "temperature": temperature}
    options |= {key: value for key, value in changes.items() if value is not None}
    sampler = build_sampler({"nfe": DEFAULT_NFE, **options})
    if grid is None:
        return sampler
    if isinstance(sampler, BaselineSampler):
        raise ValueError(f"a grid is for the mr samplers, not for {options['name']}")
    return MRSampler(**{**sampler.options(), "grid": grid})


def describe_sampler(sampler: MRSampler) -> dict[str, Any]:
    """Plain options that :func:`build_sampler` makes an equal sampler of.

    Raises:
        TypeError: its grid is a function, which cannot be written down.
    """
    options, grid = sampler.options(), sampler.grid
    if isinstance(grid, Mapping):
        options["grid"] = {nfe: [float(t) for t in times] for nfe, times in grid.items()}
    elif isinstance(grid, (Tensor, Sequence)) and not isinstance(grid, str):
        options["grid"] = [float(t) for t in grid]
    elif not isinstance(grid, str):
        raise TypeError("a grid that is a function cannot be written down: give its times")
    return options


def read_sampler(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The options kept in a checkpoint or exported folder, or None.

    Raises:
        CheckpointError: it is no checkpoint, or what it keeps makes no sampler.
    """
    options: dict[str, Any] | None = read_config(path).get(SAMPLER_KEY)
    if options is None:
        return None
    try:
        build_sampler(options)
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: the sampler it keeps cannot be used ({error}): name another, or run "
            "mrdiff sweep --save"
        ) from error
    return options


def save_sampler(path: str | os.PathLike[str], options: Mapping[str, Any]) -> None:
    """Keep a sampler in a checkpoint, see :func:`mrdiff.checkpoints.keeping.keep`.

    Args:
        path: ``.ckpt`` file or exported folder.
        options: as for :func:`build_sampler`; str, int, float, bool, None, lists and dicts.

    Raises:
        CheckpointError: ``path`` is no checkpoint, or cannot be written.
        ValueError: the options make no sampler, or are not plain values.
    """
    kept = dict(options)
    check_plain(kept)
    build_sampler(kept)
    keep(path, SAMPLER_KEY, kept)
