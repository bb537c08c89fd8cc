"""Exported models: a folder of ``model.safetensors`` and a description."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from mrdiff.checkpoints.description import CONFIG_KEY, CheckpointError
from mrdiff.checkpoints.folder import CARD, YAML, config_text, hub_name
from mrdiff.checkpoints.reading import WEIGHT_FILES, read_checkpoint
from mrdiff.system.files import appearing, is_free


def write_model(
    folder: str | os.PathLike[str],
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    start: Mapping[str, Tensor] | None = None,
    card: str | None = None,
) -> None:
    """Write weights, by the network's names, and a description as :func:`mrdiff.load_model` reads.

    ``start`` has those of the model that the path starts from. With the text of a ``card`` it is as
    the Hub wants it: ``README.md``, and the description in JSON if JSON holds it, else in YAML.

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
        described = {CONFIG_KEY: dict(config)}
        name = YAML if card is None else hub_name(described)
        (made / name).write_text(config_text(described, name), encoding="utf-8")
        if card is not None:
            (made / CARD).write_text(card, encoding="utf-8")


def export_model(
    checkpoint: str | os.PathLike[str], folder: str | os.PathLike[str], *, half: bool = False
) -> None:
    """Write a checkpoint's EMA weights and description as a folder, see :func:`write_model`.

    Weights in ``half`` precision are read as float32 again; CheckpointError if one is too large.
    """
    stored = read_checkpoint(checkpoint)
    written = _halved if half else dict
    start = None if stored.start is None else written(stored.start.weights)
    write_model(folder, written(stored.weights), stored.config, start=start)


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    halved = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    for name, value in halved.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"the weight {name} is too large for 16 bits: export without")
    return halved
