"""The methods of :mod:`benchmarks.peers` that the project's own command trains, and their samplers.

Each is the task's recipe with an overlay: the network, the data, the average of the weights and the
minutes are the same for all.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from benchmarks.evaluation import ROOT, restore
from datamodules import Sample
from mrdiff.checkpoints.reading import load_model
from mrdiff.solvers.presets import make_sampler

Restore = Callable[[Sample], Tensor]  # -> [1, 3, H, W] in [0, 1]
Restorers = tuple[int, dict[tuple[str, int], Restore]]  # the parameters; by sampler and NFE

# The plain regression: on a line without noise (InDI) the state at t = 1 is the degraded image, and
# with one time step no other time is trained. What is left is the clean image from the degraded one
# in one call, by the recipe's loss and optimizer.
_REGRESSION = {
    "model": {"process": {"class_path": "mrdiff.InDI"}, "time_steps": 1},
}

_STEPS = 100  # T of IR-SDE
_OFFICIAL_OPTIMIZER = {
    "optimizer": {
        "class_path": "torch.optim.Adam",
        "init_args": {"lr": 1e-4, "betas": [0.9, 0.99]},
    },
    "lr_scheduler": {
        "class_path": "torch.optim.lr_scheduler.MultiStepLR",
        "init_args": {"milestones": [200_000, 400_000, 600_000], "gamma": 0.5},
    },
}


def _irsde(task: str) -> dict[str, Any]:
    """Process, parameterization and loss of its authors: configs/irsde_paired.yaml."""
    schedule = {
        "class_path": "mrdiff.TabulatedTheta.irsde",
        "init_args": {"kind": "cosine", "steps": _STEPS, "eps": 0.005},
    }
    sigma_max = (10 if task == "derain" else 50) / 255
    return {
        "process": {
            "class_path": "mrdiff.MRProcess",
            "init_args": {"schedule": schedule, "sigma_max": sigma_max},
        },
        "parameterization": "noise",
        "loss": "mrdiff.training.L1",
        "objective": {
            "class_path": "mrdiff.training.OptimalStep",
            "init_args": {"steps": _STEPS},
        },
        "time_steps": _STEPS,
        "time_power": 1,
    }


def _overlay(method: str, task: str) -> dict[str, Any]:
    if method == "regression":
        return _REGRESSION
    if method == "ours":
        return {}
    if method == "irsde":
        whole = {"model": _irsde(task) | _OFFICIAL_OPTIMIZER}
        return whole | {"trainer": {"gradient_clip_val": None}}
    return {"model": _irsde(task)}


# What each is restored with: sampler and NFE.
SAMPLED: dict[str, list[tuple[str, int]]] = {
    "regression": [("fidelity", 1)],
    "ours": [*(("fidelity", nfe) for nfe in (1, 2, 3, 5, 10)), ("mr-ode-2", 5)],
    "irsde": [("posterior", _STEPS), ("mr-ode-2", 5)],
    "irsde+": [("posterior", _STEPS), ("mr-ode-2", 5)],
}


def train(method: str, task: str, seed: int, minutes: float, folder: Path) -> int:
    """Train by the real command for so many minutes, without validation; the steps it made."""
    overlay = folder / "overlay.yaml"
    overlay.write_text(yaml.safe_dump(_overlay(method, task)))
    command = [
        *(sys.executable, "train.py", "--config", f"{task}.yaml", "--config", str(overlay)),
        *("--minutes", str(minutes), "--seed_everything", str(seed), "--data.seed", str(seed)),
        *("--trainer.limit_val_batches", "0", "--trainer.num_sanity_val_steps", "0"),
        *("--trainer.logger.init_args.save_dir", str(folder)),
        *("--trainer.logger.init_args.version", "run"),
        *("--trainer.enable_progress_bar", "false"),
    ]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    steps: int = torch.load(_checkpoint(folder), weights_only=True)["global_step"]
    return steps


def restorers(method: str, folder: Path) -> Restorers:
    """The network's parameters, and by sampler and NFE what restores a sample."""
    denoiser = load_model(_checkpoint(folder), "cpu")
    size = sum(parameter.numel() for parameter in denoiser.network.parameters())
    runs = {key: make_sampler(key[0], nfe=key[1]) for key in SAMPLED[method]}
    return size, {key: partial(restore, denoiser, sampler=run) for key, run in runs.items()}


def _checkpoint(folder: Path) -> Path:
    (found,) = folder.glob("*/run/checkpoints/last.ckpt")
    return found
