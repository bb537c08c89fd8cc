"""Makes the optimizer of a run and the schedule of its learning rate."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from mrdiff.training.budget import find_budget
from mrdiff.training.checks import TrainingError
from mrdiff.training.warmup import WarmupCosine


class Factories(NamedTuple):
    """Shared by copies of a module, as an average is.

    Behind configured ones stands the command line, which cannot be copied once processes talk.
    """

    optimizer: OptimizerCallable
    scheduler: LRSchedulerCallable

    def __deepcopy__(self, memo: dict[int, Any]) -> Factories:
        return self

    def make(
        self, parameters: Iterable[nn.Parameter], trainer: Trainer
    ) -> tuple[Optimizer, LRScheduler | ReduceLROnPlateau]:
        """Both; TrainingError if one of them refuses its options or is shorter than the run."""
        try:
            optimizer = self.optimizer(parameters)
            scheduler = self.scheduler(optimizer)
        except (TypeError, ValueError) as error:
            raise TrainingError(f"model.optimizer or model.lr_scheduler: {error}") from error
        budget = find_budget(trainer)
        if isinstance(scheduler, WarmupCosine) and budget is not None:
            scheduler.progress = budget.progress
        elif isinstance(scheduler, WarmupCosine) and scheduler.total is None:
            steps = trainer.estimated_stepping_batches
            # A run that only time limits has no known length: the rate stays at its peak.
            scheduler.total = int(steps) if math.isfinite(steps) else None
        if isinstance(scheduler, OneCycleLR):
            steps = trainer.estimated_stepping_batches
            if steps > scheduler.total_steps:
                known = f"{steps}: set its total_steps to that"
                clock = "as many as its minutes allow: take mrdiff.training.WarmupCosine"
                raise TrainingError(
                    f"model.lr_scheduler: OneCycleLR ends after {scheduler.total_steps} steps and "
                    f"the run has {known if budget is None else clock}"
                )
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])  # so that another one is noticed on resume
        return optimizer, scheduler


def plateau_key(scheduler: ReduceLROnPlateau) -> str:
    """The metric that it watches: its own ``monitor``, which torch's has not, or ``val/loss``."""
    return getattr(scheduler, "monitor", None) or "val/loss"


def schedule_settings(scheduler: LRScheduler | ReduceLROnPlateau) -> LRSchedulerConfigType:
    """How Lightning is to step it: at every step of the optimizer.

    A ReduceLROnPlateau is stepped by the module after each validation instead, for Lightning's
    steps follow batches or epochs: here it but saves it.
    """
    if isinstance(scheduler, ReduceLROnPlateau):
        return LRSchedulerConfigType(
            scheduler=scheduler,
            monitor=plateau_key(scheduler),
            interval="epoch",
            frequency=sys.maxsize,
        )
    return LRSchedulerConfigType(scheduler=scheduler, interval="step")


def step_plateaus(trainer: Trainer) -> None:
    """Let each ReduceLROnPlateau look at its metric, after a validation."""
    for scheduler in (config.scheduler for config in trainer.lr_scheduler_configs):
        if isinstance(scheduler, ReduceLROnPlateau):
            value = trainer.callback_metrics.get(plateau_key(scheduler))
            if value is not None:
                scheduler.step(value)
