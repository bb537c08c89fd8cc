"""Checkpoints that need nothing but themselves: what they hold, and the model in them.

A checkpoint carries the description of its network, process and parameterization as plain
``class_path`` / ``init_args`` dicts beside the weights. Only tensors and plain values are read
(``weights_only=True``), and only classes of allowed packages are built.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mrdiff.checkpoints.adapters import merge
from mrdiff.checkpoints.description import CheckpointError, build, describe
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.diffusion.process import MRProcess
from mrdiff.diffusion.schedule import MRSchedule
from mrdiff.system.devices import pick_device

CONFIG_KEY = "mrdiff"
FORMAT = 1
_PREFIX = "denoiser.network."


@dataclass(frozen=True)
class Stored:
    """What a checkpoint holds: its description and the network's weights (the EMA ones).

    Adapters are merged into the weights, and the description has none.
    """

    path: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]


def describe_denoiser(denoiser: Denoiser) -> dict[str, Any]:
    """The part of a checkpoint's description that sampling needs."""
    return {
        "network": describe(denoiser.network),
        "process": describe(denoiser.process),
        "parameterization": denoiser.parameterization.name,
        "data_std": denoiser.data_std,
    }


def _build_process(spec: Mapping[str, Any], *, allow: Sequence[str] = ()) -> MRProcess:
    # Either a description, or the bare arguments as a configuration file writes them.
    arguments = dict(spec.get("init_args", spec))
    schedule = build(arguments["schedule"], MRSchedule, allow=allow)  # type: ignore[type-abstract]
    arguments["schedule"] = schedule
    return MRProcess(**arguments)


def network_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's part of a Lightning checkpoint's ``state_dict``, by the network's names."""
    weights = checkpoint["state_dict"].items()
    return {k.removeprefix(_PREFIX): v for k, v in weights if k.startswith(_PREFIX)}


def _read_ckpt(path: Path) -> Stored:
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is not a readable checkpoint: torch.save did not write it")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} is not a readable checkpoint: {reason}") from error
    if not isinstance(content, dict) or CONFIG_KEY not in content:
        raise CheckpointError(f"{path} was not written by mrdiff: it has no {CONFIG_KEY!r} entry")
    return Stored(path, content[CONFIG_KEY], network_weights(content))


def _read_export(path: Path) -> Stored:
    config_file, weights_file = path / "config.yaml", path / "model.safetensors"
    for file in (config_file, weights_file):
        if not file.is_file():
            raise CheckpointError(f"{path} is not an exported model: it has no {file.name}")
    try:
        config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
        return Stored(path, config[CONFIG_KEY], load_file(weights_file))
    except (yaml.YAMLError, SafetensorError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a readable exported model: {error}") from error


def _merged(stored: Stored) -> Stored:
    """The same without adapters."""
    model = dict(stored.config["model"])
    lora = model.pop("lora", None)
    if lora is None:
        return stored
    try:
        weights = merge(stored.weights, lora)
    except CheckpointError as error:
        raise CheckpointError(f"{stored.path}: {error}") from error
    return Stored(stored.path, {**stored.config, "model": model}, weights)


def read_checkpoint(path: str | os.PathLike[str], *, merged: bool = True) -> Stored:
    """What a ``.ckpt`` file or an exported folder holds.

    Args:
        path: file or folder.
        merged: whether adapters are merged into the weights; if not, all is as it was trained.

    Raises:
        CheckpointError: it is missing, unreadable or foreign.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}")
    stored = _read_export(path) if path.is_dir() else _read_ckpt(path)
    if stored.config.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {stored.config.get('format')}; "
            f"this version reads {FORMAT}"
        )
    return _merged(stored) if merged else stored


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The description that a checkpoint or an exported folder carries.

    Raises:
        CheckpointError: it is missing, unreadable or foreign.
    """
    return read_checkpoint(path, merged=False).config


def load_model(
    path: str | os.PathLike[str], device: str = "auto", *, allow: Sequence[str] = ()
) -> Denoiser:
    """The denoiser of a ``.ckpt`` file or an exported directory, in eval mode, EMA weights.

    Args:
        path: file or directory.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
        allow: packages besides mrdiff whose classes may be built.

    Raises:
        CheckpointError: missing, unreadable, foreign, or with a class outside the packages.
    """
    stored = read_checkpoint(path)
    model = stored.config["model"]
    network = build(model["network"], nn.Module, allow=allow)
    check_fit(stored.weights, network, str(path))
    network.load_state_dict(stored.weights)
    denoiser = Denoiser(
        network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        _build_process(model["process"], allow=allow),
        Parameterization.named(model["parameterization"]),
        data_std=model["data_std"],
    )
    return denoiser.to(pick_device(device)).eval().requires_grad_(False)


def check_meaning(
    config: Mapping[str, Any], denoiser: Denoiser, where: str, *, cure: str = "set the same"
) -> None:
    """Refuse weights that were trained to mean something else.

    Args:
        config: the description in the checkpoint.
        denoiser: the model that shall take the weights.
        where: names the checkpoint in the error.
        cure: what to do about it, in the error.

    Raises:
        CheckpointError: the process, the parameterization or ``data_std`` differ.
    """
    model = config["model"]
    # Whose schedule the run already uses is trusted in the checkpoint too.
    home = type(denoiser.process.schedule).__module__.partition(".")[0]
    same = {
        "process": _build_process(model["process"], allow=[home]) == denoiser.process,
        "parameterization": model["parameterization"] == denoiser.parameterization.name,
        "data_std": model["data_std"] == denoiser.data_std,
    }
    for key, equal in same.items():
        if not equal:
            raise CheckpointError(
                f"model.{key} of this run differs from {where}, which has {model[key]}: "
                f"its weights would mean something else; {cure}"
            )


def check_tuning(config: Mapping[str, Any], tuning: Mapping[str, Any], where: str) -> None:
    """Raise CheckpointError unless it was trained with the same ``freeze`` and ``lora``."""
    for key, ours in tuning.items():
        theirs = config["model"].get(key)
        if (theirs or None) != (ours or None):
            raise CheckpointError(
                f"model.{key} of this run is {ours}, but {where} has {theirs}: set the same"
            )


def check_optimizer(config: Mapping[str, Any], ours: Any, where: str) -> None:
    """Raise CheckpointError if the run was trained by an optimizer of another class.

    Args:
        config: the description in the checkpoint.
        ours: ``model.optimizer`` of this run, as the configuration has it.
        where: names the checkpoint in the error.
    """
    kinds = [
        spec.get("class_path") if isinstance(spec, Mapping) else spec
        for spec in (config["model"].get("optimizer"), ours)
    ]
    if None not in kinds and kinds[0] != kinds[1]:
        raise CheckpointError(
            f"model.optimizer of this run is {kinds[1]}, but {where} has the state of {kinds[0]}: "
            "set the same, or begin a new run with --init_from"
        )


def check_fit(weights: Mapping[str, Tensor], network: nn.Module, where: str) -> None:
    """Raise CheckpointError unless names and shapes of the weights are the network's."""
    theirs = {name: tuple(value.shape) for name, value in weights.items()}
    ours = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    wrong = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    if wrong:
        raise CheckpointError(
            f"the weights in {where} do not fit model.network of this run: {len(wrong)} differ, "
            f"first {wrong[0]} ({theirs.get(wrong[0])} there, {ours.get(wrong[0])} here)"
        )


def check_resumable(path: str | os.PathLike[str]) -> None:
    """Raise CheckpointError unless ``path`` is a file that a run can be resumed from."""
    if Path(path).is_dir():
        raise CheckpointError(f"{path} is a folder; give the .ckpt file")
    read_checkpoint(path, merged=False)
