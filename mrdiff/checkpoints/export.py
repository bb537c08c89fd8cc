"""Exported models: a folder of ``model.safetensors`` and ``config.yaml``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save
from torch import Tensor

from mrdiff.checkpoints.description import CONFIG_KEY, CheckpointError
from mrdiff.checkpoints.reading import WEIGHT_FILES, read_checkpoint
from mrdiff.system.files import appearing, is_free


def write_model(
    folder: str | os.PathLike[str],
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    start: Mapping[str, Tensor] | None = None,
) -> None:
    """Write weights, by the network's names, and a description as :func:`mrdiff.load_model` reads.

    ``start`` has those of the model that the path starts from.

    Raises:
        CheckpointError: ``folder`` exists and is not empty.
    """
    folder = Path(folder)
    if not is_free(folder):
        raise CheckpointError(f"{folder} exists and is not an empty folder: choose another")
    with appearing(folder) as made:
        # Bytes, because save_file would leave the file readable by its owner alone.
        for file, each in zip(WEIGHT_FILES.values(), (weights, start), strict=True):
            if each is not None:
                content = save({name: value.contiguous() for name, value in each.items()})
                (made / file).write_bytes(content)
        text = yaml.safe_dump({CONFIG_KEY: dict(config)}, sort_keys=False, allow_unicode=True)
        (made / "config.yaml").write_text(text, encoding="utf-8")


def export_model(checkpoint: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Write a checkpoint's EMA weights and description as a folder, see :func:`write_model`."""
    stored = read_checkpoint(checkpoint)
    start = None if stored.start is None else stored.start.weights
    write_model(folder, stored.weights, stored.config, start=start)
