"""What would end a run in its middle, or be passed over in silence: refused, or said, before it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import (
    DeviceStatsMonitor,
    EarlyStopping,
    LearningRateMonitor,
    StochasticWeightAveraging,
    ThroughputMonitor,
    WeightAveraging,
)
from lightning.pytorch.loggers import MLFlowLogger

from mrdiff.cli.common.errors import CommandError
from mrdiff.training.module import MRDiffusion

_SHOWN = 12  # keys
_OURS = ("mrdiff", "callbacks", "lightning")


def check_run(
    trainer: Trainer, model: MRDiffusion, data: LightningDataModule, scheduler: object
) -> None:
    """Look at what is about to be trained; ``scheduler`` is the configuration's.

    Callbacks that only speak to a logger are left out where there is none, with a note.

    Raises:
        CommandError: it cannot be meant; names the key and what there is instead.
    """
    _leave_out_monitors(trainer)
    _refuse_file_store(trainer)
    averages = [
        type(callback).__name__
        for callback in _callbacks(trainer)
        if isinstance(callback, (WeightAveraging, StochasticWeightAveraging))
    ]
    if len(averages) > 1:
        message = f"trainer.callbacks: {' and '.join(averages)} both replace the weights: keep one"
        raise CommandError(message, status=2)
    known = _logged_keys(trainer, model)
    validated = bool(trainer.limit_val_batches) and getattr(data, "sets", {}).get("val") is not None
    for where, monitor, needs_validation in _monitored(trainer, scheduler):
        if needs_validation and not validated:
            message = f"{where} follows {monitor}, but nothing is validated: set data.val"
            raise CommandError(message, status=2)
        if known is not None and monitor not in known:
            raise CommandError(
                f"{where} follows {monitor}, which nothing logs; {_near(monitor, known)}", status=2
            )


def _refuse_file_store(trainer: Trainer) -> None:
    """Refuse MLflow's store of files.

    Its ``val/psnr1`` is a file, and ``val/psnr1/mr-ode-2`` one in a folder of that name: a run
    would end at its first validation.
    """
    for logger in trainer.loggers:
        uri = str(logger._tracking_uri or "") if isinstance(logger, MLFlowLogger) else "none://"
        if uri.startswith("file:") or ("://" not in uri and not uri.startswith("databricks")):
            cure = "set MLFLOW_TRACKING_URI, or trainer.logger.tracking_uri sqlite:///mlflow.db"
            message = f"trainer.logger: MLflow cannot keep a run in files: {cure}"
            raise CommandError(message, status=2)


def _callbacks(trainer: Trainer) -> list[Callback]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def _leave_out_monitors(trainer: Trainer) -> None:
    if trainer.loggers:
        return
    kinds = (LearningRateMonitor, DeviceStatsMonitor, ThroughputMonitor)
    idle = [callback for callback in _callbacks(trainer) if isinstance(callback, kinds)]
    for callback in idle:
        _callbacks(trainer).remove(callback)
    if idle and trainer.is_global_zero:
        names = ", ".join(type(callback).__name__ for callback in idle)
        print(f"note: without a logger (trainer.logger) there is no {names}", file=sys.stderr)


def _logged_keys(trainer: Trainer, model: MRDiffusion) -> list[str] | None:
    """Everything that can be followed; None if a callback may log what it does not tell of."""
    keys = [*model.logged_keys(), "epoch", "step"]
    for callback in _callbacks(trainer):
        told = getattr(callback, "logged_keys", None)
        if told is not None:
            keys += told()
        elif type(callback).__module__.partition(".")[0] not in _OURS:
            return None
    return keys


def _monitored(trainer: Trainer, scheduler: object) -> Iterator[tuple[str, str, bool]]:
    """Who follows which key, and whether it is of no use without a validation."""
    for callback in _callbacks(trainer):
        monitor = getattr(callback, "monitor", None)
        following = getattr(callback, "strict", True) and isinstance(monitor, str)
        if following and not str(monitor).startswith("lr-"):
            name = type(callback).__name__
            yield f"trainer.callbacks: {name}", str(monitor), isinstance(callback, EarlyStopping)
    if isinstance(scheduler, Mapping) and "ReduceLROnPlateau" in str(scheduler.get("class_path")):
        arguments: Mapping[str, Any] = scheduler.get("init_args") or {}
        yield "model.lr_scheduler", arguments.get("monitor", "val/loss"), True


def _near(monitor: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(monitor, known, n=_SHOWN, cutoff=0)
    more = len(set(known)) - len(nearest)
    return "there are " + ", ".join(nearest) + (f", and {more} more" if more > 0 else "")
