"""Checkpoint settings: plain values written into its description after training, as its sampler."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import yaml

from mrdiff.checkpoints.description import CONFIG_KEY, CheckpointError
from mrdiff.checkpoints.reading import read_checkpoint
from mrdiff.checkpoints.schema import check_plain
from mrdiff.system.files import replacing
from mrdiff.system.untrusted import read_yaml


def write_setting(path: str | os.PathLike[str], key: str, value: Any) -> None:
    """Write a plain value into the description of a ``.ckpt`` file or an exported folder.

    All else in it stays as it is. The file is replaced whole or not at all, and stays what it was
    in permissions; a link stays a link.

    Raises:
        CheckpointError: ``path`` is no checkpoint, or cannot be written.
        ValueError: the value is not plain.
    """
    check_plain(value)
    read_checkpoint(path, merged=False)
    file = (Path(path) / "config.yaml" if Path(path).is_dir() else Path(path)).resolve()
    refused = f"{path}: its {key} cannot be written"
    if not os.access(file, os.W_OK):
        raise CheckpointError(f"{refused}: {file.name} is read-only")
    try:
        with replacing(file) as temporary:
            _copy_with(file, key, value, temporary)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{refused}: {reason}") from error


def _copy_with(file: Path, key: str, value: Any, target: Path) -> None:
    """Write to ``target`` what ``file`` (a checkpoint or a config.yaml) holds, and the value."""
    if file.suffix == ".yaml":
        config = read_yaml(file)
        config[CONFIG_KEY][key] = value
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        target.write_text(text, encoding="utf-8")
    else:
        content = torch.load(file, map_location="cpu", weights_only=True)
        content[CONFIG_KEY][key] = value
        torch.save(content, target)
