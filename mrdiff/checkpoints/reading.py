"""Checkpoints that need nothing but themselves: what they hold, and the model in them.

Beside the weights a checkpoint has the description of its model. Only tensors and plain values are
read (``weights_only=True``), and only classes of allowed packages are built.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mrdiff.checkpoints.adapters import check_adapters, merge
from mrdiff.checkpoints.bounds import bounded_by, check_stored, check_weights
from mrdiff.checkpoints.checks import check_fit
from mrdiff.checkpoints.description import (
    CONFIG_KEY,
    CheckpointError,
    build,
    build_process,
)
from mrdiff.checkpoints.folder import START, WEIGHTS, description_file, read_config
from mrdiff.checkpoints.places import find_model
from mrdiff.checkpoints.schema import check_description
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.system.devices import pick_device
from mrdiff.system.saved import SavedFileError, load_saved

_PREFIX, _START = "denoiser.network.", "denoiser.start.network."
# The files of an exported folder with weights, whose names are without these prefixes.
WEIGHT_FILES = {_PREFIX: WEIGHTS, _START: START}


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint: its description, and the network's weights (the EMA ones).

    ``start`` is the model that its path starts from, as a checkpoint of the same file.
    """

    path: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    start: Checkpoint | None = None


def network_weights(content: Mapping[str, Any], prefix: str = _PREFIX) -> dict[str, Tensor]:
    """The network's part of the ``state_dict`` of a Lightning checkpoint, by the network's names.

    Raises:
        CheckpointError: there is none, or it is not of finite dense tensors.
    """
    state = content.get("state_dict")
    if not isinstance(state, Mapping):
        raise CheckpointError("it has no state_dict")
    names = [name for name in state if isinstance(name, str) and name.startswith(prefix)]
    weights = {name.removeprefix(prefix): state[name] for name in names}
    check_weights(weights)
    return weights


def _read_ckpt(path: Path) -> tuple[Any, Any]:
    """The description and the whole content of a ``.ckpt`` file."""
    try:
        content = load_saved(path)
    except SavedFileError as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    return (content.get(CONFIG_KEY), content) if isinstance(content, dict) else (None, content)


def _read_export(path: Path) -> tuple[Any, dict[str, Any]]:
    """The description and the weights of a folder, named as in a ``.ckpt`` file."""
    files = {prefix: path / name for prefix, name in WEIGHT_FILES.items()}
    described = description_file(path)
    for file in (described, files[_PREFIX]):
        if not file.is_file():
            raise CheckpointError(f"{path} is not an exported model: it has no {file.name}")
    try:
        config = read_config(described)
        state = {
            prefix + name: value
            for prefix, file in files.items()
            if file.is_file()
            for name, value in load_file(file).items()
        }
        found = config.get(CONFIG_KEY) if isinstance(config, dict) else None
        return found, {"state_dict": state}
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, SafetensorError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} is not a readable exported model: {reason}") from error


def read_checkpoint(path: str | os.PathLike[str], *, merged: bool = True) -> Checkpoint:
    """What a ``.ckpt`` file, an exported folder or a model of the Hub, ``hf://``, holds.

    Adapters are ``merged`` into the weights and left out of the description; else all is as it was
    trained.

    Raises:
        CheckpointError: it is missing, unreadable, damaged or foreign.
        PlaceError: as of :func:`mrdiff.checkpoints.places.find_model`.
    """
    path = find_model(path)
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}")
    config, content = _read_export(path) if path.is_dir() else _read_ckpt(path)
    try:
        check_description(config)
        weights, others = network_weights(content), network_weights(content, _START)
        if not path.is_dir():
            check_stored({**weights, **{_START + name: w for name, w in others.items()}}, path)
        check_adapters(weights, config["model"].get("lora"))
        start = config["model"].get("start")
        if start is not None and not others:
            raise CheckpointError("the weights of model.start, which it describes, are missing")
        first = None if start is None else Checkpoint(path, {**config, "model": start}, others)
        found = Checkpoint(path, config, weights, first)
        return merge_adapters(found) if merged else found
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def merge_adapters(checkpoint: Checkpoint) -> Checkpoint:
    """The same with its adapters merged into the weights and left out of the description."""
    model = dict(checkpoint.config["model"])
    lora = model.pop("lora", None)
    if lora is None:
        return checkpoint
    config = {**checkpoint.config, "model": model}
    return replace(checkpoint, config=config, weights=merge(checkpoint.weights, lora))


def open_checkpoint(source: str | os.PathLike[str] | Checkpoint) -> Checkpoint:
    """The checkpoint at a path, see :func:`read_checkpoint`; an opened one as it is."""
    return source if isinstance(source, Checkpoint) else read_checkpoint(source)


def build_network(checkpoint: Checkpoint, *, allow: Sequence[str] = ()) -> nn.Module:
    """The network of a checkpoint, its weights still to be loaded.

    Raises:
        CheckpointError: a class outside the packages, or a network that is not of these weights.
    """
    with bounded_by(checkpoint.weights):
        network = build(checkpoint.config["model"]["network"], nn.Module, allow=allow)
    check_fit(checkpoint.weights, network, "the checkpoint")
    return network


def _build_denoiser(checkpoint: Checkpoint, allow: Sequence[str]) -> Denoiser:
    model = checkpoint.config["model"]
    network = build_network(checkpoint, allow=allow)
    network.load_state_dict(checkpoint.weights)
    denoiser = Denoiser(
        network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        build_process(model["process"], allow=allow),
        Parameterization.named(model["parameterization"]),
        data_std=model["data_std"],
    )
    if checkpoint.start is not None:
        denoiser.start_from(_build_denoiser(checkpoint.start, allow))
    return denoiser


def load_model(
    source: str | os.PathLike[str] | Checkpoint,
    device: str = "auto",
    *,
    allow: Sequence[str] = (),
) -> Denoiser:
    """The model of a checkpoint, with averaged weights, in evaluation mode.

    Args:
        source: ``.ckpt`` file, exported folder, ``hf://ORG/NAME``, or opened checkpoint.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
        allow: packages besides mrdiff whose classes the checkpoint may name.

    Raises:
        CheckpointError: as of :func:`read_checkpoint`; or a class outside the packages.
    """
    checkpoint = open_checkpoint(source)
    try:
        denoiser = _build_denoiser(checkpoint, allow)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error
    return denoiser.to(pick_device(device)).eval().requires_grad_(False)
