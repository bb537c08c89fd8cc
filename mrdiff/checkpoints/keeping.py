"""Plain values that are kept in a checkpoint's description after training, such as its sampler."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import torch
import yaml

from mrdiff.checkpoints.description import CheckpointError
from mrdiff.checkpoints.reading import CONFIG_KEY, read_config
from mrdiff.system.files import replacing

__all__ = ["check_plain", "keep"]


def check_plain(value: Any) -> None:
    """Refuse what a checkpoint could not be read with again: only these types load safely.

    Raises:
        ValueError: neither str, int, float, bool, None, nor a list or dict of them.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            check_plain(key)
            check_plain(item)
    elif isinstance(value, list):
        for item in value:
            check_plain(item)
    elif type(value) not in (str, int, float, bool, type(None)):
        kind = f"{type(value).__module__}.{type(value).__name__}"
        raise ValueError(f"what is kept is of plain values, got {kind} {value!r}")


def keep(path: str | os.PathLike[str], key: str, value: Any) -> None:
    """Keep a value in a checkpoint or exported folder; all else in it stays as it is.

    The file is replaced whole or not at all, and keeps its permissions; a link stays a link.

    Args:
        path: ``.ckpt`` file or exported folder.
        key: of its description.
        value: str, int, float, bool, None, lists and dicts.

    Raises:
        CheckpointError: ``path`` is no checkpoint, or cannot be written.
        ValueError: the value is not plain.
    """
    check_plain(value)
    read_config(path)
    file = (Path(path) / "config.yaml" if Path(path).is_dir() else Path(path)).resolve()
    if not os.access(file, os.W_OK):
        raise CheckpointError(f"{path}: its {key} cannot be kept: {file.name} is read-only")
    try:
        with replacing(file) as temporary, temporary.open("wb") as target:
            _write_with(file, key, value, target)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: its {key} cannot be kept: {reason}") from error


def _write_with(file: Path, key: str, value: Any, target: IO[bytes]) -> None:
    """Write what ``file`` (a checkpoint or an export's config.yaml) holds, with the value."""
    if file.suffix == ".yaml":
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        config[CONFIG_KEY][key] = value
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        target.write(text.encode("utf-8"))
    else:
        content = torch.load(file, map_location="cpu", weights_only=True)
        content[CONFIG_KEY][key] = value
        torch.save(content, target)
