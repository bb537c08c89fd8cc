"""Checkpoint settings: plain values written into its description after training, as its sampler."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from mrdiff.checkpoints.description import CONFIG_KEY, CheckpointError
from mrdiff.checkpoints.folder import JSON, YAML, config_text, description_file, read_config
from mrdiff.checkpoints.places import why_fixed
from mrdiff.checkpoints.reading import read_checkpoint
from mrdiff.checkpoints.schema import check_plain
from mrdiff.system.files import replacing


def write_setting(path: str | os.PathLike[str], key: str, value: Any) -> None:
    """Write a plain value into the description of a ``.ckpt`` file or an exported folder.

    All else in it stays as it is. The file is replaced whole or not at all, and stays what it was
    in permissions; a link stays a link.

    Raises:
        CheckpointError: ``path`` is no checkpoint, or cannot be written.
        ValueError: the value is not plain.
    """
    check_plain(value)
    file = description_file(read_checkpoint(path, merged=False).path)
    refused = f"{path}: its {key} cannot be written"
    if reason := why_fixed(file):
        raise CheckpointError(f"{refused}: {reason}")
    try:
        with replacing(file.resolve()) as temporary:
            _copy_with(file, key, value, temporary)
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(f"{refused}: {reason}") from error


def _copy_with(file: Path, key: str, value: Any, target: Path) -> None:
    """Write to ``target`` what ``file`` (a checkpoint or a description) holds, and the value."""
    if file.name in (YAML, JSON):
        config = read_config(file)
        config[CONFIG_KEY][key] = value
        target.write_text(config_text(config, file.name), encoding="utf-8")
    else:
        content = torch.load(file, map_location="cpu", weights_only=True)
        content[CONFIG_KEY][key] = value
        torch.save(content, target)
