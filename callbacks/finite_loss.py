"""A run that is no longer of numbers ends, instead of going on for nothing and saving that."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.loggers import is_logging_step
from mrdiff.training.checks import not_finite

_MOST = 100  # steps without a look


class DivergedError(RuntimeError):
    """The loss or a weight is infinite or not a number: one line says when, and what to do."""


class FiniteLoss(Callback):
    """Ends a run that has diverged by :class:`DivergedError`.

    Looks at the loss once every ``trainer.log_every_n_steps``, at the latest every 100 steps, so
    that a GPU is not waited for at every step; at the loss and the weights before a validation,
    before a checkpoint is written and at the end. A batch that is not finite itself gets the blame.
    """

    def __init__(self) -> None:
        self._loss: Tensor | None = None
        # Of each step since the last look: its number, its images' names, and sums over each.
        self._batches: list[tuple[int, list[str], list[Tensor]]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if isinstance(batch, Mapping) and {"lq", "gt"} <= batch.keys():
            sums = [batch[key].sum((1, 2, 3), dtype=torch.float32) for key in ("lq", "gt")]
            self._batches.append((trainer.global_step, list(batch.get("name", ())), sums))
        if is_logging_step(trainer) or len(self._batches) >= _MOST:
            self._look(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._loss is not None:  # in a fit, after the sanity check
            self._look(trainer, pl_module.state_dict())

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._look(trainer, checkpoint["state_dict"], checkpoint.get("current_model_state", {}))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer, pl_module.state_dict())

    def _look(self, trainer: Trainer, *states: Mapping[str, Any]) -> None:
        """Raise if the latest loss or any of the weights is not finite."""
        loss, wrong = self._loss, ""
        if loss is not None and not bool(torch.isfinite(loss).all()):
            wrong = f"the training loss is {float(loss)}"
        for name in filter(None, map(not_finite, states)):
            wrong = wrong or f"{name} has values that are not finite"
        if wrong:
            raise DivergedError(f"{wrong} at step {trainer.global_step}: {self._cause(trainer)}")
        self._batches.clear()

    def _cause(self, trainer: Trainer) -> str:
        for step, names, sums in self._batches:
            finite = torch.stack(sums).isfinite().all(dim=0)
            bad = [name for name, good in zip(names, finite.tolist(), strict=False) if not good]
            if not bool(finite.all()):
                which = f": {', '.join(bad)}" if bad else ""
                return f"there are images with values that are not finite in step {step}{which}"
        groups = (group for optimizer in trainer.optimizers for group in optimizer.param_groups)
        rate = max((group["lr"] for group in groups), default=0.0)
        return (
            f"the run has diverged. Lower model.optimizer.lr (now up to {rate:.2g}), or look for "
            "images that are not in [0, 1]; earlier checkpoints of this run are kept"
        )
