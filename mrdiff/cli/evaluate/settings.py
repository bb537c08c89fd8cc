"""What all numbers in an output folder have in common, kept there: others are refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from mrdiff.checkpoints.reading import Checkpoint
from mrdiff.cli.common.errors import CommandError, one_line
from mrdiff.cli.evaluate.measures import Measures
from mrdiff.cli.evaluate.parts import FOLDER
from mrdiff.system.files import write_text

__all__ = ["digest_of_file", "digest_of_measures", "digest_of_model", "keep_settings"]

_FILE = "evaluation.yaml"


def digest_of_file(file: Path | None) -> str | None:
    """Of its content, if there is one."""
    if file is None:
        return None
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def digest_of_model(checkpoint: Checkpoint) -> str:
    """Of the description and the weights of the model, whatever file they come in."""
    parts = [part.weights for part in (checkpoint, checkpoint.start) if part]
    return _digest(yaml.safe_dump(checkpoint.config["model"]), parts)


def digest_of_measures(measures: Measures) -> str:
    """Of the weights of the networks that measure."""
    networks = (measures.meter, measures.features)
    return _digest("", [network.state_dict() for network in networks if network is not None])


def _digest(text: str, parts: Iterable[Mapping[str, Tensor]]) -> str:
    whole = hashlib.sha256(text.encode())
    for weights in parts:
        for name, weight in sorted(weights.items()):
            whole.update(name.encode())
            whole.update(weight.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()[:16]


def keep_settings(output: Path, settings: Mapping[str, Any]) -> None:
    """Write plain settings, or compare them with those of the photos that are there.

    Raises:
        CommandError: they differ, or those that are there cannot be read.
    """
    file = output / _FILE
    if not (file.exists() and (output / FOLDER).exists()):
        write_text(file, yaml.safe_dump(dict(settings), sort_keys=False))
        return
    try:
        there = yaml.safe_load(file.read_text(encoding="utf-8"))
        differing = [key for key, value in settings.items() if there[key] != value]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise CommandError(f"{file}: not readable: choose another --output", status=2) from error
    if differing:
        key = differing[0]
        what = f"holds an evaluation with {key} {there[key]}, this one has {settings[key]}"
        raise CommandError(f"--output {output} {one_line(what)}: choose another", status=2)
