"""The sampler that a checkpoint was found to be best with, kept in its description."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
import yaml
from torch import Tensor

from mrdiff.baselines import BaselineSampler
from mrdiff.checkpoint import CONFIG_KEY, read_config
from mrdiff.description import CheckpointError
from mrdiff.sampler import MRSampler
from mrdiff.timegrid import Grid

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
        name: of :data:`mrdiff.sampler.SAMPLER_NAMES`.
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


def _check_plain(value: Any) -> None:
    """Refuse what a checkpoint could not be read with again: only these types load safely."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(key)
            _check_plain(item)
    elif isinstance(value, list):
        for item in value:
            _check_plain(item)
    elif type(value) not in (str, int, float, bool, type(None)):
        kind = f"{type(value).__module__}.{type(value).__name__}"
        raise ValueError(f"a kept sampler is of plain values, got {kind} {value!r}")


def save_sampler(path: str | os.PathLike[str], options: Mapping[str, Any]) -> None:
    """Keep a sampler in a checkpoint or exported folder; all else in it stays as it is.

    The file is replaced whole or not at all, and keeps its permissions; a link stays a link.

    Args:
        path: ``.ckpt`` file or exported folder.
        options: as for :func:`build_sampler`; str, int, float, bool, None, lists and dicts.

    Raises:
        CheckpointError: ``path`` is no checkpoint, or cannot be written.
        ValueError: the options make no sampler, or are not plain values.
    """
    kept = dict(options)
    _check_plain(kept)
    build_sampler(kept)
    read_config(path)
    file = (Path(path) / "config.yaml" if Path(path).is_dir() else Path(path)).resolve()
    if not os.access(file, os.W_OK):
        raise CheckpointError(f"{path}: its sampler cannot be kept: {file.name} is read-only")
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as target:
            _write_with(file, kept, target)
        shutil.copymode(file, temporary)
        os.replace(temporary, file)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: its sampler cannot be kept: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_with(file: Path, options: dict[str, Any], target: IO[bytes]) -> None:
    """Write what ``file`` (a checkpoint or an export's config.yaml) holds, with the sampler."""
    if file.suffix == ".yaml":
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        config[CONFIG_KEY][SAMPLER_KEY] = options
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        target.write(text.encode("utf-8"))
    else:
        content = torch.load(file, map_location="cpu", weights_only=True)
        content[CONFIG_KEY][SAMPLER_KEY] = options
        torch.save(content, target)
