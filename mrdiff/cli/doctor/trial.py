"""Some real training steps: Lightning's own ``fit``, without what writes, logs or validates."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.nn.utils import get_total_norm

from mrdiff.cli.common.errors import is_expected, one_line
from mrdiff.cli.doctor.findings import Finding, error, warning
from mrdiff.cli.train.run import BuiltRun
from mrdiff.system.memory import available, forget_peak, is_out_of_memory, limited, peak
from mrdiff.training.budget import Budget, find_budget

_WARM_UP, _MEASURED = 2, 5  # batches
_PATIENCE = 60.0  # seconds after which fewer will do
_TIGHT = 0.9  # share of the memory from which another program's share may be missed


@dataclass
class Trial:
    """What the steps showed."""

    losses: list[float] = field(default_factory=list)  # of each batch
    gradients: list[float] = field(default_factory=list)  # the norm of each optimizer step's
    intervals: list[float] = field(default_factory=list)  # seconds from batch end to batch end
    waits: list[float] = field(default_factory=list)  # seconds of them until the batch was there
    accumulated: int = 1  # batches an optimizer step
    steps: float = math.inf  # optimizer steps of the whole run; inf if it has no end
    validations: float = 0  # of the whole run; inf likewise
    budget: Budget | None = None  # where the clock ends the run
    room: int | None = None  # bytes of memory that were free before
    memory: int | None = None  # the most bytes used
    failure: Exception | None = None  # why it ended early

    @property
    def seconds(self) -> float:
        """Seconds an optimizer step: the median, the first batches left out if there are more."""
        measured = self.intervals[_WARM_UP:] or self.intervals[-1:]
        return self.accumulated * statistics.median(measured)

    @property
    def waiting(self) -> float:
        """The share of the time spent waiting for data."""
        first = min(_WARM_UP, len(self.waits) - 1)
        return sum(self.waits[first:]) / sum(self.intervals[first:])


class _Probe(Callback):
    """Asks how long the run will be, does without validation, and ends it after a few steps."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self._start = self._mark = self._wait = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trial.accumulated = trainer.accumulate_grad_batches
        self.trial.steps = trainer.estimated_stepping_batches
        budget = self.trial.budget
        if trainer.enable_validation:
            by_steps = _validations(trainer, self.trial.steps)
            self.trial.validations = by_steps if budget is None else budget.validations
        trainer.limit_val_batches = 0
        self._start = self._mark = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._wait = time.perf_counter() - self._mark

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        # Called before gradients are clipped.
        gradients = [p.grad.float() for p in pl_module.parameters() if p.grad is not None]
        self.trial.gradients.append(float(get_total_norm(gradients)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self.trial.losses.append(float(loss.detach()))  # waits for a GPU
        now = time.perf_counter()
        self.trial.intervals.append(now - self._mark)
        self.trial.waits.append(self._wait)
        self._mark = now
        done = len(self.trial.intervals)
        enough = done >= _WARM_UP + _MEASURED or (now - self._start > _PATIENCE and done > 1)
        trainer.should_stop = enough and len(self.trial.gradients) > 0


def _validations(trainer: Trainer, steps: float) -> float:
    """How often a run of so many optimizer steps validates."""
    batches = steps * trainer.accumulate_grad_batches
    if trainer.val_check_batch is None or not math.isfinite(steps):  # by the clock, or no end
        return math.inf
    if trainer.check_val_every_n_epoch is None:
        return batches // trainer.val_check_batch
    epochs = batches / max(1, trainer.num_training_batches)
    each = max(1, trainer.num_training_batches // max(1, trainer.val_check_batch))
    return epochs // trainer.check_val_every_n_epoch * each


def run_trial(run: BuiltRun) -> Trial:
    """Train some steps as the run would, which changes its weights; nothing is written."""
    trainer: Any = run.trainer
    trial = Trial(budget=find_budget(trainer))
    device = trainer.strategy.root_device
    # EMA stays, for its memory.
    averages = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]
    trainer.callbacks[:] = [*averages, _Probe(trial)]
    trainer.loggers = []
    trainer.num_sanity_val_steps = 0
    trainer.fit_loop.min_epochs = 0
    trainer.fit_loop.epoch_loop.min_steps = None
    trial.room = available(device)
    forget_peak(device)
    try:
        with limited(device):
            trainer.fit(run.model, datamodule=run.datamodule)
    except Exception as failure:  # whatever a long run would end in
        trial.failure = failure
    trial.memory = peak(device)
    return trial


def out_of_memory(what: str, cure: str, failure: BaseException) -> Finding:
    reason = one_line(failure).split(". ")[0]
    return error(f"{what}: out of memory: {reason}", cure)


def check_trial(run: BuiltRun, trial: Trial) -> Iterator[Finding]:
    """Findings about the steps."""
    data: Any = run.datamodule
    if trial.failure is not None and is_out_of_memory(trial.failure):
        what = f"a training step with data.batch_size {data.batch_size}"
        yield out_of_memory(what, _memory_cure(run), trial.failure)
    elif trial.failure is not None:
        yield _failed(trial.failure)
    elif not trial.losses:
        yield error("no training step was done", "the training set is empty, or max_steps is 0")
    bad = [value for value in trial.losses if not math.isfinite(value)]
    if bad:
        what = f"the loss is not finite in {len(bad)} of {len(trial.losses)} batches"
        cure = "try --trainer.precision 32-true and a smaller learning rate; check model.loss"
        yield error(what, f"{cure} and the data for NaN")
    # Scaled float16 gradients overflow at first, until the scale has found its place.
    finite = [value for value in trial.gradients if math.isfinite(value)]
    scaled = getattr(run.trainer.precision_plugin, "scaler", None) is not None
    if len(finite) < (1 if scaled else len(trial.gradients)) and trial.gradients and not bad:
        what = f"gradients are not finite in {len(trial.gradients) - len(finite)} steps"
        yield error(what, "try --trainer.precision 32-true and a smaller learning rate")
    if finite and not any(finite):
        what = "all gradients are zero: nothing is learnt"
        yield error(what, "check that model.loss depends on the output, and what is frozen")
    if trial.losses and len(data.sets["train"]) < data.batch_size:
        what = f"data.batch_size {data.batch_size} is more than the whole training set has"
        yield warning(what, f"batches will be of {len(data.sets['train'])}: get more images")


def _failed(failure: Exception) -> Finding:
    if is_expected(failure):
        return error(f"training does not start: {one_line(failure)}", "mend what it names")
    what = f"a training step failed: {type(failure).__name__}: {one_line(failure)}"
    return error(what, "MRDIFF_DEBUG=1 mrdiff train … shows where")


def _memory_cure(run: BuiltRun) -> str:
    data: Any = run.datamodule
    size = data.batch_size
    patch = getattr(data.sets["train"], "patch_size", None)
    cures = [f"--data.batch_size {size // 2}"] if size > 1 else []
    if size > 1:
        cures[0] += " (with --trainer.accumulate_grad_batches 2 for the same gradient)"
    if patch is None or patch > 64:
        smaller = 256 if patch is None else patch // 2
        cures.append(f"--data.train.init_args.patch_size {smaller}")
    if run.trainer.strategy.root_device.type == "cuda" and "16" not in str(run.trainer.precision):
        cures.append("--trainer.precision bf16-mixed")
    return "a smaller step: " + ", or ".join([*cures, "a smaller network"])


def check_memory(run: BuiltRun, trial: Trial) -> Iterator[Finding]:
    """A warning if the memory only just sufficed."""
    if trial.failure is None and trial.room and (trial.memory or 0) > _TIGHT * trial.room:
        what = f"training uses {(trial.memory or 0) / trial.room:.0%} of the memory that was free"
        yield warning(what, f"close other programs, or take {_memory_cure(run)}")
