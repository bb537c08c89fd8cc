"""Find the checkpoint that a run goes on from, and the folder that it goes on in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from mrdiff.checkpoints.description import CheckpointError
from mrdiff.checkpoints.places import find_model
from mrdiff.checkpoints.reading import Checkpoint, read_checkpoint
from mrdiff.cli.common.errors import CommandError

DEFAULT_LOGS = "lightning_logs"  # Lightning's own choice for a run without a logger of its own
_DEPTH = 3  # folders at most between those of the logger and ``checkpoints``


def _init_args(value: Any) -> Mapping[str, Any]:
    """The ``init_args`` of a class_path dict; empty for anything else."""
    arguments = value.get("init_args") if isinstance(value, Mapping) else None
    return arguments if isinstance(arguments, Mapping) else {}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _logger_folder(logger: Any, root: Path) -> Path:
    """Where a logger's runs have their folders, as far as its arguments say."""
    arguments, kind = _init_args(logger), str(logger.get("class_path")).rpartition(".")[2]
    folder = Path(arguments.get("save_dir") or root)
    if kind in ("TensorBoardLogger", "CSVLogger"):
        return folder / (arguments.get("name", DEFAULT_LOGS) or "")
    if kind == "WandbLogger":
        return folder / (arguments.get("project") or DEFAULT_LOGS)
    if kind == "MLFlowLogger":
        return root / _experiment(arguments)
    return folder


def _experiment(arguments: Mapping[str, Any]) -> str:
    """The id of an experiment of MLflow, as which Lightning has its folder."""
    from mlflow import MlflowClient  # an extra

    name = arguments.get("experiment_name", DEFAULT_LOGS)
    found = MlflowClient(arguments.get("tracking_uri")).get_experiment_by_name(name)
    return name if found is None else str(found.experiment_id)


def checkpoint_folders(trainer: Mapping[str, Any]) -> list[Path]:
    """The folders in or below which a run of this ``trainer`` section writes its ``last.ckpt``.

    They are the ``dirpath`` of its first ModelCheckpoint, else the first logger's folder, else that
    of ``default_root_dir``.
    """
    for callback in _as_list(trainer.get("callbacks")):
        if dirpath := _init_args(callback).get("dirpath"):
            return [Path(dirpath)]
        if isinstance(callback, Mapping) and "ModelCheckpoint" in str(callback.get("class_path")):
            break
    root = Path(trainer.get("default_root_dir") or ".")
    loggers = [each for each in _as_list(trainer.get("logger")) if isinstance(each, Mapping)]
    if loggers:
        return [_logger_folder(loggers[0], root)]
    if trainer.get("default_root_dir"):
        return [root]
    return [root / ("checkpoints" if trainer.get("logger") is False else DEFAULT_LOGS)]


def last_checkpoints(trainer: Mapping[str, Any]) -> list[Path]:
    """All ``last.ckpt`` of such runs, the newest first."""
    within = [
        "last*.ckpt",
        *("*/" * depth + "checkpoints/last*.ckpt" for depth in range(_DEPTH + 1)),
    ]
    found = {
        path
        for folder in checkpoint_folders(trainer)
        for pattern in within
        for path in folder.glob(pattern)
        if re.fullmatch(r"last(-v\d+)?", path.stem)
    }
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def find_checkpoint(value: str, trainer: Mapping[str, Any]) -> Path:
    """The file meant by ``--ckpt_path value``: the run's newest ``last.ckpt``, or the path.

    If there is none, CommandError: training never starts afresh in silence.
    """
    if value != "last":
        path = find_model(value)
        if not path.exists():
            raise CommandError(f"no checkpoint {value}", status=2)
        return path
    found = last_checkpoints(trainer)
    if not found:
        where = ", ".join(str(folder) for folder in checkpoint_folders(trainer))
        message = f"--ckpt_path last: no last.ckpt below {where}; leave it out to start a new run"
        raise CommandError(message, status=2)
    return found[0]


def open_start(path: Path) -> Checkpoint:
    """The checkpoint as it was trained.

    Raises:
        CheckpointError: it cannot be read; names the newest one beside it that can.
    """
    try:
        return read_checkpoint(path, merged=False)
    except CheckpointError as error:
        others = sorted(path.parent.glob("*.ckpt"), key=lambda each: each.stat().st_mtime)
        for other in reversed(others):
            if other != path and _is_readable(other):
                raise CheckpointError(f"{error}; {other} beside it can be read") from error
        raise


def _is_readable(path: Path) -> bool:
    try:
        read_checkpoint(path, merged=False)
    except CheckpointError:
        return False
    return True


def run_version(checkpoint: Path, trainer: Mapping[str, Any]) -> int | str | None:
    """The version V if ``checkpoint`` is ``FOLDER/V/checkpoints/*`` of this run, else None.

    A folder ``version_N`` is the number N, as loggers have it.
    """
    version = checkpoint.resolve().parent.parent
    folders = {folder.resolve() for folder in checkpoint_folders(trainer)}
    match = re.fullmatch(r"version_(\d+)", version.name)
    if match and not folders.isdisjoint(version.parents):
        return int(match[1])
    return version.name if version.parent in folders else None


def go_on_beside(
    checkpoint: Path, trainer: Mapping[str, Any], logger: Any, callbacks: Iterable[Callback]
) -> Any:
    """Let a resumed run write where its checkpoint lies: one best, one last, one log.

    Not through the configuration, whose saved copy would then always write to that folder. Returns
    the logger to use, given what the configuration has made.
    """
    version = run_version(checkpoint, trainer)
    if version is None:
        return logger
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(checkpoint.parent)
    if logger in (None, True):
        root = trainer.get("default_root_dir") or "."
        return TensorBoardLogger(root, name=DEFAULT_LOGS, version=version)
    match loggers := _as_list(logger):
        case [WandbLogger() as first, *_]:
            first._id = first._wandb_init["id"] = str(version)
        case [MLFlowLogger() as first, *_]:
            first._run_id = str(version)
        case _:
            for each in loggers:
                if isinstance(each, (CSVLogger, TensorBoardLogger)):
                    each._version = version
    return logger
