"""What Lightning's checkpoints lack for a resumed run to be the one that was not interrupted.

That is the state of the random generators, the gradients of a step that has not come yet, the
validation that has not come yet, and the place in the data when batches change in size.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor

_KEY = "continuing"  # of a checkpoint: tensors and plain values, as all in it


class Continuing(Callback):
    """Writes it into every checkpoint of a fit, and goes on from it."""

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None
        self._validated = False  # since the latest batch

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        loop = trainer.fit_loop
        fetcher = None if self._validated else loop._data_fetcher  # None behind the end, too
        checkpoint[_KEY] = {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "validation_due": fetcher and loop.epoch_loop._should_check_val_fx(fetcher),
            "accumulate": trainer.accumulate_grad_batches,
            "accumulated": _accumulated(trainer),
            "gradients": _gradients(trainer, pl_module) if _accumulated(trainer) else {},
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._restored = checkpoint.get(_KEY)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on, now that the sanity check has drawn its random numbers."""
        restored, self._restored = self._restored, None
        if restored is None:
            return
        known: Any = trainer  # typed as less than it is
        data = known.datamodule
        said = data.recount() if hasattr(data, "recount") else []
        for callback in known.callbacks:
            if isinstance(callback, GradientAccumulationScheduler):  # acts when an epoch starts
                number = callback.get_accumulate_grad_batches(trainer.current_epoch)
                trainer.accumulate_grad_batches = number
        said += _resume_step(trainer, pl_module, restored)
        if trainer.is_global_zero:
            for line in said:
                print(f"note: {line}", file=sys.stderr)
        torch.set_rng_state(restored["cpu"])
        if torch.cuda.is_available() and len(restored["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(restored["cuda"])
        if restored["validation_due"]:
            _validate(trainer)

    def on_train_batch_start(self, *_: Any) -> None:
        self._validated = False

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = not trainer.sanity_checking


def _accumulated(trainer: Trainer) -> int:
    """How many batches of a step under way have been used."""
    current: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    under_way = trainer.fit_loop._should_accumulate()
    return int(current.processed % trainer.accumulate_grad_batches) if under_way else 0


def _gradients(trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
    """Those accumulated so far, their mean over the processes."""
    return {
        name: trainer.strategy.reduce(parameter.grad.clone(), reduce_op="mean")
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def _resume_step(trainer: Trainer, module: LightningModule, restored: dict[str, Any]) -> list[str]:
    """Take up the gradients of the step under way, or say that it cannot be the same one."""
    before, now = restored["accumulate"], trainer.accumulate_grad_batches
    current: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    used = current.processed % now
    if before == now and restored["accumulated"] in (0, used):
        parameters = dict(module.named_parameters())
        for name, gradient in restored["gradients"].items():
            parameters[name].grad = gradient.to(parameters[name].device)
        return []
    said = f"a step accumulates {now} batches (before: {before}), the first one {now - used}"
    if restored["accumulated"]:
        said += f"; the {restored['accumulated']} batches of the one under way are left out"
    return [said]


def _validate(trainer: Trainer) -> None:
    """Make up for a validation as Lightning's loop would have run it."""
    validation = trainer.fit_loop.epoch_loop.val_loop
    validation.restarting = False
    trainer.validating = True
    validation.run()
    trainer.training = True
