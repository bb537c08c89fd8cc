"""The machine: room for checkpoints and caches, the device, the precision, and the workers."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from torch import nn

from mrdiff.cli.doctor.findings import Finding, counted, error, size, warning
from mrdiff.system.cores import available_cores
from mrdiff.system.devices import computes_bf16
from mrdiff.training.budget import find_budget

_MOMENTS = 2  # at most: AdamW's, each as large as the weights


def _nearest(path: Path) -> Path:
    """The first of a path and its parents that is there."""
    return next(way for way in (path, *path.parents) if way.exists())


def _writable(path: Path) -> bool:
    """Whether it, or what is missing of it, can be made."""
    return os.access(_nearest(path.absolute()), os.W_OK)


def checkpoint_bytes(model: nn.Module, trainer: Any) -> int:
    """The size of one checkpoint: weights, their average, and the optimizer's moments."""
    weights = sum(value.nbytes for value in model.state_dict().values())
    averaged = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)
    learnt = sum(value.nbytes for value in model.parameters() if value.requires_grad)
    return weights * (1 + averaged) + learnt * _MOMENTS


def _kept(callback: ModelCheckpoint, trainer: Trainer) -> int | None:
    """How many files a callback leaves beside the last one; None if it deletes none."""
    if callback.save_top_k >= 0:
        return callback.save_top_k
    every = callback._every_n_train_steps or trainer.val_check_interval
    budget = find_budget(trainer)
    if budget is not None:
        return None if callback._every_n_train_steps else budget.validations
    if trainer.max_steps < 1 or not isinstance(every, int) or every < 1:
        return None
    return math.ceil(trainer.max_steps / every)


def _files(callbacks: Sequence[ModelCheckpoint], trainer: Trainer) -> int | None:
    """How many files there will be in a folder, with the last one and the one being written."""
    total = 1 + any(callback.save_last for callback in callbacks)
    for callback in callbacks:
        kept = _kept(callback, trainer)
        if kept is None:
            return None
        total += kept
    return total


def _folder(callback: ModelCheckpoint, trainer: Trainer) -> Path:
    """Where a callback writes, or a folder above."""
    if callback.dirpath:
        return Path(callback.dirpath)
    logged = [logger.save_dir for logger in trainer.loggers if logger.save_dir]
    return Path(logged[0] if logged else trainer.default_root_dir)


def check_disk(model: nn.Module, trainer: Trainer) -> tuple[list[Finding], list[str]]:
    """Findings about the folders of checkpoints, and a line on each that will do."""
    one, found, good = checkpoint_bytes(model, trainer), [], []
    folders: dict[Path, list[ModelCheckpoint]] = {}
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            folders.setdefault(_folder(callback, trainer), []).append(callback)
    for folder, callbacks in folders.items():
        files = _files(callbacks, trainer)
        free = shutil.disk_usage(_nearest(folder.absolute())).free
        need = one * (files or 1)
        many = counted(files, "checkpoint") if files else "an unknown number of checkpoints"
        text = f"{many} of {size(one)} in {folder}"
        if not _writable(folder):
            cure = "choose another folder: --trainer.default_root_dir, or save_dir of the logger"
            found.append(error("the folder of the checkpoints cannot be written", cure, [folder]))
        elif free < need:
            cure = "free some, choose another disk, or keep fewer (save_top_k of ModelCheckpoint)"
            found.append(error(f"{text} need {size(need)}, {size(free)} are free", cure, [folder]))
        elif files is None:
            cure = "set save_top_k of ModelCheckpoint: no checkpoint is deleted"
            found.append(warning(f"{text}, {size(free)} are free", cure, [folder]))
        else:
            good.append(f"room for {text}: {size(need)} of {size(free)} free")
    return found, good


def check_caches(datasets: Sequence[Any]) -> Iterator[Finding]:
    """Cached files that are not there and cannot be written."""
    for path in dict.fromkeys(path for dataset in datasets for path in dataset.caches()):
        if not path.exists() and not _writable(path):
            cure = "set MRDIFF_CACHE to a writable folder"
            yield error("the cache of generated pictures cannot be written", cure, [path.parent])


def device_line(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    if device.type == "cpu":
        name += f" with {counted(torch.get_num_threads(), 'thread')}"
    many = f", {trainer.world_size} of them" if trainer.world_size > 1 else ""
    return f"device {name}{many}, precision {trainer.precision}"


def check_device(trainer: Trainer, workers: int) -> Iterator[Finding]:
    """Device, precision and workers that do not go together."""
    device, precision = trainer.strategy.root_device, str(trainer.precision)
    if precision.startswith("bf16") and not computes_bf16(device):
        what = f"precision {precision} on a {device.type.upper()} that does not compute in bfloat16"
        instead = "16-mixed or 32-true" if device.type == "cuda" else "32-true"
        yield warning(what, f"leave --trainer.precision out, or give {instead}")
    if device.type == "cpu" and torch.cuda.is_available():
        cure = "give --trainer.accelerator auto, unless the GPU is for others"
        yield warning("there is a GPU, but the run is on the CPU", cure)
    cores = available_cores()
    if workers > cores:
        what = f"data.num_workers is {workers}, but there are {counted(cores, 'core')}"
        yield warning(what, f"give --data.num_workers auto, or at most {cores}")
    if workers == 0 and device.type == "cuda":
        cure = "give --data.num_workers auto"
        yield warning("data.num_workers is 0: the GPU will wait for the data", cure)
    if torch.get_num_threads() > cores:
        what = f"{torch.get_num_threads()} threads on {counted(cores, 'core')} hinder each other"
        yield warning(what, f"set OMP_NUM_THREADS={cores}")
