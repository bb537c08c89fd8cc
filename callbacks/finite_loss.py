"""A run whose loss is no longer a number ends, instead of going on for nothing."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.loggers import is_logging_step


class DivergedError(RuntimeError):
    """The loss is infinite or not a number: one line that says when, and what to do."""


class FiniteLoss(Callback):
    """Ends a run that has diverged by :class:`DivergedError`.

    Looks once every ``trainer.log_every_n_steps``, so that a GPU is not waited for at every step.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not is_logging_step(trainer):
            return
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if loss is None or bool(torch.isfinite(loss).all()):
            return
        groups = (group for optimizer in trainer.optimizers for group in optimizer.param_groups)
        rate = max(group["lr"] for group in groups)
        raise DivergedError(
            f"the training loss is {float(loss)} at step {trainer.global_step}: the run has "
            f"diverged. Lower model.optimizer.lr (now up to {rate:.2g}), or look for images "
            "that are not in [0, 1]; earlier checkpoints of this run are kept"
        )
