"""A run that the clock ends: its rate, its validations and its end follow the time, not steps."""

from __future__ import annotations

import math
import sys
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from mrdiff.training.warmup import WarmupCosine

# What a Trainer needs besides: no end and no validation but this callback's.
TRAINER_OPTIONS: dict[str, Any] = {
    "max_steps": sys.maxsize,
    "max_epochs": -1,
    "min_steps": None,
    "min_epochs": None,
    "val_check_interval": sys.maxsize,
    "check_val_every_n_epoch": None,
}

_AGREE = 10  # steps: several processes ask the first one for the time only so often
_GUESS = 40  # steps that a validation takes as long as, until one has been timed
_SHARE = 5  # a validation comes when so many times what the last one took have gone by


class Budget(Timer):
    """Ends a fit when its minutes are over, however many steps that makes.

    The clock runs from the first batch on, in validations and saves too; the rate's share of it
    begins at the first step, before which the step may have been compiled. Training stops early
    enough for the last validation, if that takes as long as the one before it (at most three
    quarters of the time). A resumed run goes on with what was left, and may have other minutes.

    Args:
        minutes: of the run, in all; positive.
        validations: of the run, at equal distances, the last one at its end; fewer where they
            would take more than a fifth of the time.
    """

    def __init__(self, *, minutes: float, validations: int = 7) -> None:
        if not 0 < minutes < math.inf:
            raise ValueError(f"minutes must be positive, got {minutes}")
        super().__init__(verbose=False)
        self.seconds, self.validations = 60 * minutes, validations
        self._now = self._reserve = 0.0  # seconds as of the latest look, the same for all processes
        self._start = 0.0  # when the first step was made
        self._validated = 0.0  # when the latest validation began
        self._took: float | None = None  # how long it was, its pictures and checkpoints included
        self._first: tuple[float, int] | None = None  # look of this process: seconds and steps
        self._begun: float | None = None  # a validation that is not over
        self._finished = False

    def progress(self) -> float:
        """The share of the time for training that has gone by, in [0, 1]."""
        whole = self._end() - self._start
        return min(1.0, (self._now - self._start) / whole) if whole > 0 else 1.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        if trainer.is_global_zero and not any(isinstance(s, WarmupCosine) for s in schedules):
            kinds = " and ".join(type(schedule).__name__ for schedule in schedules) or "the rate"
            print(f"note: {kinds} does not follow `minutes`, only the end does", file=sys.stderr)

    def on_fit_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Leave a run alone that has ended already."""
        if self._finished and self.progress() == 1:
            trainer.should_stop = True
            if trainer.is_global_zero:
                minutes = f"{self.seconds / 60:g}"
                print(f"note: the {minutes} minutes are over: give more --minutes", file=sys.stderr)

    def on_before_optimizer_step(self, trainer: Trainer, *args: Any) -> None:
        """Look at the clock; behind the step the schedule asks for the progress."""
        if trainer.world_size == 1 or trainer.global_step % _AGREE == 0:
            mine = self.time_elapsed(), self._validation(trainer)
            self._now, self._reserve = trainer.strategy.broadcast(mine)
            if trainer.global_step == 0:
                self._start = self._now

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Behind a step of the optimizer, which has the rate of the latest look by now."""
        stepped = not trainer.fit_loop._should_accumulate()
        trainer.should_stop = trainer.should_stop or (stepped and self.progress() == 1)
        trainer.val_check_batch = 1 if stepped and self._due() else sys.maxsize
        known: Any = trainer  # typed as less than it is
        if trainer.global_step % known.log_every_n_steps == 0:
            left = torch.tensor(max(0.0, self.seconds - self._now) / 60)  # on the CPU: no wait
            pl_module.log("minutes_left", left, prog_bar=True, logger=False, batch_size=1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._validated, self._begun = self._now, self.time_elapsed()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time it; once more when its pictures and checkpoints are made, with the next batch."""
        if self._begun is not None:
            self._took = self.time_elapsed() - self._begun

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.on_validation_end(trainer, pl_module)
        self._begun = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self._finished = self.progress() == 1

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"elapsed": self.time_elapsed()}
        return state | {key: getattr(self, f"_{key}") for key in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._offset = state_dict["elapsed"]
        for key in _STATE:
            setattr(self, f"_{key}", state_dict[key])

    def _validation(self, trainer: Trainer) -> float:
        """How long one will take, in seconds."""
        now, steps = self.time_elapsed(), trainer.global_step
        since, first = self._first = self._first or (now, steps)  # behind what compiles
        if self._took is None and any(trainer.num_val_batches):
            return _GUESS * (now - since) / max(1, steps - first)
        return self._took or 0.0

    def _end(self) -> float:
        """When training stops for the last validation, in seconds."""
        return self.seconds - min(self._reserve, 0.75 * self.seconds)

    def _due(self) -> bool:
        """Whether it is time for a validation, and not nearly for the last one."""
        apart = max(self.seconds / self.validations, _SHARE * self._reserve)
        return self._now - self._validated >= apart and self._end() - self._now >= apart / 2


_STATE = ("now", "reserve", "start", "validated", "took", "finished")


def find_budget(trainer: Trainer) -> Budget | None:
    """That of a run, if it has one."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, Budget)), None)


def progress(trainer: Trainer) -> float:
    """The share of a run's time, or else of its steps, that has gone by; 0 if it has no end."""
    budget = find_budget(trainer)
    if budget is not None:
        return budget.progress()
    steps = trainer.estimated_stepping_batches
    return min(1.0, trainer.global_step / steps) if steps > 0 else 0.0


def planned_validations(trainer: Any) -> int:
    """How many the ``trainer`` section of a configuration makes by steps; 7 if unknown."""
    steps, every = trainer.max_steps, trainer.val_check_interval
    if not (isinstance(steps, int) and steps > 0 and isinstance(every, int) and every > 0):
        return 7
    return max(1, steps * (trainer.accumulate_grad_batches or 1) // every)
