"""Checkpoints that need nothing but themselves: load, export, start a new run from.

A checkpoint carries the description of its network, process and parameterization as plain
``class_path`` / ``init_args`` dicts beside the weights. Only tensors and plain values are read
(``weights_only=True``), and only classes of allowed packages are built.
"""

from __future__ import annotations

import importlib
import inspect
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mrdiff.denoiser import Denoiser
from mrdiff.parameterization import Parameterization
from mrdiff.process import MRProcess
from mrdiff.schedule import MRSchedule

CONFIG_KEY = "mrdiff"
FORMAT = 1
ALLOWED_PACKAGES = ("mrdiff",)
_PREFIX = "denoiser.network."
_PLAIN = (str, int, float, bool, type(None))
T = TypeVar("T")


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit; one line naming the file."""


@dataclass(frozen=True)
class _Stored:
    """What a checkpoint holds: its description and the network's weights (the EMA ones)."""

    path: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]


def describe(value: Any) -> Any:
    """Plain dicts from which :func:`build` makes an equal object.

    The object must keep each argument of its constructor as an attribute of the same name.

    Raises:
        TypeError: if it does not.
    """
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return value.tolist()
    names = list(inspect.signature(type(value)).parameters)
    missing = [name for name in names if not hasattr(value, name)]
    if missing:
        raise TypeError(
            f"{type(value).__qualname__} cannot be written to a checkpoint: keep the constructor "
            f"argument {missing[0]!r} as an attribute of the same name"
        )
    init_args = {name: describe(getattr(value, name)) for name in names}
    kind = type(value)
    return {
        "class_path": f"{kind.__module__}.{kind.__qualname__}",
        "init_args": init_args,
    }


def build(spec: Mapping[str, Any], base: type[T], *, allow: Sequence[str] = ()) -> T:
    """The object that a ``class_path`` / ``init_args`` dict describes.

    Args:
        spec: the description; nested descriptions are built too.
        base: the class it must be an instance of.
        allow: packages allowed besides mrdiff itself.

    Raises:
        CheckpointError: class outside the allowed packages, not found, or of another kind.
    """
    class_path = str(spec.get("class_path"))
    _check_package(class_path, class_path, allow)
    module_name, _, name = class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(f"the class {class_path} cannot be imported: {error}") from error
    if not (inspect.isclass(kind) and issubclass(kind, base)):
        raise CheckpointError(f"{class_path} is not a {base.__name__}")
    # An allowed module also has what it imports from others: the class must be its own.
    _check_package(f"{kind.__module__}.{kind.__qualname__}", class_path, allow)
    arguments = {}
    for key, value in (spec.get("init_args") or {}).items():
        nested = isinstance(value, Mapping) and "class_path" in value
        arguments[key] = build(value, object, allow=allow) if nested else value
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{class_path} cannot be built: {error}") from error


def _check_package(home: str, class_path: str, allow: Sequence[str]) -> None:
    """Refuse a class that lives outside the allowed packages."""
    package = home.partition(".")[0]
    if package not in (*ALLOWED_PACKAGES, *allow):
        raise CheckpointError(
            f"the class {class_path} is outside the allowed packages; if you trust it, allow "
            f"{package!r} (--allow_package {package}, or load_model(..., allow=[{package!r}]))"
        )


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


def _read_ckpt(path: Path) -> _Stored:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} is not a readable checkpoint: {reason}") from error
    if not isinstance(content, dict) or CONFIG_KEY not in content:
        raise CheckpointError(f"{path} was not written by mrdiff: it has no {CONFIG_KEY!r} entry")
    weights = content["state_dict"].items()
    network = {k.removeprefix(_PREFIX): v for k, v in weights if k.startswith(_PREFIX)}
    return _Stored(path, content[CONFIG_KEY], network)


def _read_export(path: Path) -> _Stored:
    config_file, weights_file = path / "config.yaml", path / "model.safetensors"
    for file in (config_file, weights_file):
        if not file.is_file():
            raise CheckpointError(f"{path} is not an exported model: it has no {file.name}")
    try:
        config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
        return _Stored(path, config[CONFIG_KEY], load_file(weights_file))
    except (yaml.YAMLError, SafetensorError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a readable exported model: {error}") from error


def _read(path: str | os.PathLike[str]) -> _Stored:
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}")
    stored = _read_export(path) if path.is_dir() else _read_ckpt(path)
    if stored.config.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {stored.config.get('format')}; "
            f"this version reads {FORMAT}"
        )
    return stored


def pick_device(device: str) -> torch.device:
    """``auto`` is CUDA, then Apple's GPU, then the CPU; anything else is torch's own name."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


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
    stored = _read(path)
    model = stored.config["model"]
    network = build(model["network"], nn.Module, allow=allow)
    try:
        network.load_state_dict(stored.weights)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {path} do not fit: {_one_line(error)}") from error
    denoiser = Denoiser(
        network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        _build_process(model["process"], allow=allow),
        Parameterization.named(model["parameterization"]),
        data_std=model["data_std"],
    )
    return denoiser.to(pick_device(device)).eval().requires_grad_(False)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def init_from(denoiser: Denoiser, path: str | os.PathLike[str]) -> None:
    """Start from old weights: load those of ``path`` into a new model's network.

    Raises:
        CheckpointError: if the network, the process or the parameterization differ.
    """
    stored = _read(path)
    model = stored.config["model"]
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
                f"model.{key} of this run differs from {path}, which has {model[key]}: "
                "its weights would mean something else; set the same"
            )
    try:
        denoiser.network.load_state_dict(stored.weights)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {path} do not fit: {_one_line(error)}") from error


def export_model(checkpoint: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Write ``model.safetensors`` (EMA weights) and ``config.yaml`` of a checkpoint.

    Raises:
        CheckpointError: unreadable checkpoint, or ``folder`` exists and is not empty.
    """
    stored, folder = _read(checkpoint), Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} exists and is not an empty folder: choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        made = Path(temporary) / "export"
        made.mkdir()
        save_file(
            {k: v.contiguous() for k, v in stored.weights.items()},
            made / "model.safetensors",
        )
        text = yaml.safe_dump({CONFIG_KEY: stored.config}, sort_keys=False, allow_unicode=True)
        (made / "config.yaml").write_text(text, encoding="utf-8")
        os.replace(made, folder)
