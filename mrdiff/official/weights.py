"""The weights in a file of the official code, whatever it wraps them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mrdiff.checkpoints.description import CheckpointError
from mrdiff.system.saved import SavedFileError, load_saved

# Later ones only if there is no earlier one.
_NESTS = ("params_ema", "params", "state_dict")
_EMA, _PARALLEL = "ema_model.", "module."


@dataclass(frozen=True)
class OfficialFile:
    """The weights in a file by their official names."""

    path: Path
    weights: dict[str, Tensor]
    wrapping: tuple[str, ...]  # what was taken off to get at them, in words


def _read(path: Path) -> Any:
    try:
        return load_saved(path)
    except SavedFileError as error:
        reason = f"damaged, or torch.save did not write it: {error}"
        raise CheckpointError(f"{path} is {reason}") from error


def read_official(path: Path) -> OfficialFile:
    """The weights in a file that ``torch.save`` wrote.

    Raises:
        CheckpointError: it cannot be read with ``weights_only=True``, or has no weights by name.
    """
    content, wrapping = _read(path), list[str]()
    if isinstance(content, Mapping):
        if {"optimizers", "schedulers"} & {*content}:
            raise CheckpointError(
                f"{path} is a training state, with optimizers and no weights of the network: give "
                "the file of the same run that has them, models/…_G.pth or …_EMA.pth"
            )
        for nest in _NESTS:
            if isinstance(content.get(nest), Mapping):
                content = content[nest]
                wrapping.append(f"those under {nest!r}")
                break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds no weights by name, but a {type(content).__name__}")
    weights = {str(name): value for name, value in content.items()}
    if any(name.startswith(_EMA) for name in weights):
        wrapping.append("those of ema_model")
        weights = {k.removeprefix(_EMA): v for k, v in weights.items() if k.startswith(_EMA)}
    if any(name.startswith(_PARALLEL) for name in weights):
        wrapping.append(f"without the prefix {_PARALLEL!r}")
        weights = {name.removeprefix(_PARALLEL): value for name, value in weights.items()}
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path} is no state dict: {name!r} is a {type(value).__name__}, not a tensor"
            )
    return OfficialFile(path, weights, tuple(wrapping))
