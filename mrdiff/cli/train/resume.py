"""Find the checkpoint that a run goes on from, and the folder that it goes on in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrdiff.cli.common.errors import CommandError

DEFAULT_LOGS = "lightning_logs"  # Lightning's own choice for a run without a logger of its own


def _init_args(value: Any) -> Mapping[str, Any]:
    """The ``init_args`` of a class_path dict; empty for anything else."""
    arguments = value.get("init_args") if isinstance(value, Mapping) else None
    return arguments if isinstance(arguments, Mapping) else {}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def checkpoint_folders(trainer: Mapping[str, Any]) -> list[Path]:
    """The folders in which a run of this ``trainer`` section writes its checkpoints.

    They are a ModelCheckpoint's own ``dirpath``, else the loggers' folders, else that of
    ``default_root_dir``.
    """
    folders = [
        Path(_init_args(callback)["dirpath"])
        for callback in _as_list(trainer.get("callbacks"))
        if _init_args(callback).get("dirpath")
    ]
    if folders:
        return folders
    root = Path(trainer.get("default_root_dir") or ".")
    for logger in _as_list(trainer.get("logger")):
        arguments = _init_args(logger)
        if arguments.get("save_dir"):
            name = arguments.get("name", DEFAULT_LOGS)
            folders.append(Path(arguments["save_dir"]) / (name or ""))
    if folders:
        return folders
    return [root if trainer.get("default_root_dir") else root / DEFAULT_LOGS]


def find_checkpoint(value: str, trainer: Mapping[str, Any]) -> Path:
    """The file meant by ``--ckpt_path value``: the run's newest ``last.ckpt``, or the path.

    If there is none, CommandError: training never starts afresh in silence.
    """
    if value != "last":
        if not Path(value).exists():
            raise CommandError(f"no checkpoint {value}", status=2)
        return Path(value)
    folders = checkpoint_folders(trainer)
    found = [path for folder in folders for path in folder.glob("**/last*.ckpt")]
    if not found:
        where = ", ".join(str(folder) for folder in folders)
        message = f"--ckpt_path last: no last.ckpt below {where}; leave it out to start a new run"
        raise CommandError(message, status=2)
    return max(found, key=lambda path: path.stat().st_mtime)


def run_version(checkpoint: Path, trainer: Mapping[str, Any]) -> int | str | None:
    """The version V if ``checkpoint`` is ``FOLDER/V/checkpoints/*`` of this run, else None.

    A folder ``version_N`` is the number N, as loggers have it. A resumed run goes on in that
    folder: one TensorBoard run, one record of the best checkpoints.
    """
    version = checkpoint.resolve().parent.parent
    folders = {folder.resolve() for folder in checkpoint_folders(trainer)}
    match = re.fullmatch(r"version_(\d+)", version.name)
    if match and not folders.isdisjoint(version.parents):
        return int(match[1])
    return version.name if version.parent in folders else None
