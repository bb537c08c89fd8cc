"""Exponential moving average of the weights: what is validated, saved and shipped."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn

from callbacks.stages import is_fitting


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(module.parameters(), module.buffers())


class EMA(EMAWeightAveraging):
    """Lightning's ``EMAWeightAveraging`` with a decay that warms up, safe for runs of any length.

    Validation and the ``state_dict`` of every checkpoint hold averaged weights; those being trained
    are beside them in ``current_model_state``, so a resumed run continues with both. After ``fit``
    the module holds the averaged weights. Differences to the parent:

    * The n-th update uses decay min(decay, (1 + n) / (10 + n)) (as in TensorFlow's moving average).
    * Until the first update, the average is the current weights: a run that ends before
      ``update_starting_at_step`` does not end with the weights it began with.
    * Outside ``fit`` the callback does nothing. The parent swaps its average in when one Trainer
      goes on to ``validate`` another checkpoint, and so evaluates the wrong weights.
    * A checkpoint written while the averaged weights are swapped in (an interrupt in validation, or
      the last one after training) has both sets of weights in their right places.
    * Buffers are copied, because statistics and tables have no average.
    * The average lives where the model does. At the parent's ``setup`` that is always the CPU.

    Args:
        decay: the largest decay, in [0, 1).
        warmup: whether the decay warms up; if not, it is ``decay`` from the second update on.
        update_every_n_steps: optimizer steps between two updates.
        update_starting_at_step: index of the first optimizer step that may update, or None for 0.
        device: where the average is kept, e.g. "cpu" to save GPU memory; None for the model's.
    """

    def __init__(
        self,
        *,
        decay: float = 0.999,
        warmup: bool = True,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
        device: str | None = None,
    ) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        if update_every_n_steps < 1:
            raise ValueError(f"update_every_n_steps must be positive, got {update_every_n_steps}")
        super().__init__(
            device=device,
            use_buffers=False,
            decay=decay,
            update_every_n_steps=update_every_n_steps,
            update_starting_at_step=update_starting_at_step,
        )
        self.decay = decay
        self.warmup = warmup
        self._swapped, self._updates = False, 0

    def decay_at(self, updates: int) -> float:
        """Decay of the next update when ``updates`` >= 1 updates have been made."""
        return min(self.decay, (1 + updates) / (10 + updates)) if self.warmup else self.decay

    @torch.no_grad()
    def _update(self, pl_module: LightningModule) -> None:
        """a <- decay a + (1 - decay) c in place for all parameters; buffers are copied.

        ``AveragedModel.update_parameters`` would wait for a GPU, to which it sends a count.
        """
        average = self._average_model
        assert average is not None
        ours: list[Tensor] = list(average.module.parameters())
        theirs: list[Tensor] = list(pl_module.parameters())
        if self._updates:
            there = [weight.to(mine.device) for mine, weight in zip(ours, theirs, strict=True)]
            torch._foreach_lerp_(ours, there, 1.0 - self.decay_at(self._updates))
        else:
            torch._foreach_copy_(ours, theirs)
        if buffers := list(pl_module.buffers()):
            torch._foreach_copy_(list(average.module.buffers()), buffers)
        average.n_averaged += 1
        self._updates += 1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._latest_update_step = trainer.global_step
            self._swapped = False

    @torch.no_grad()
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the average to the device, type and memory format that the model has by now."""
        average = self._average_model
        assert average is not None
        for ours, theirs in zip(_tensors(average.module), _tensors(pl_module), strict=True):
            device = self._device or theirs.device
            kept = (ours.device, ours.dtype, ours.stride())
            if kept != (device, theirs.dtype, theirs.stride()):
                ours.data = torch.empty_like(theirs, device=device).copy_(ours)
        average.n_averaged = average.n_averaged.cpu()  # where counting waits for nothing
        self._updates = int(average.n_averaged)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update after a step of the optimizer."""
        step = trainer.global_step
        if step > self._latest_update_step and self.should_update(step_idx=step - 1):
            self._update(pl_module)
            self._latest_update_step = step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the module with the averaged weights; a later save still has the trained ones."""
        self._swap_models(pl_module)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if is_fitting(trainer):
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if is_fitting(trainer):
            super().on_validation_epoch_end(trainer, pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Swap back if the run was interrupted within validation."""
        if is_fitting(trainer) and self._swapped:
            self._swap_models(pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Follow the module, which leaves the GPU now."""
        if stage == "fit" and self._average_model is not None:
            self._average_model.to("cpu")

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Averaged weights in ``state_dict``, those being trained in ``current_model_state``."""
        if self._average_model is None or not is_fitting(trainer):
            return
        if not self._swapped:
            self._follow_until_first_update(pl_module)
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._swapped:
            averaged = checkpoint["current_model_state"]
            checkpoint["current_model_state"] = checkpoint["state_dict"]
            checkpoint["state_dict"] = averaged

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if is_fitting(trainer):  # ``state_dict`` is enough otherwise
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _follow_until_first_update(self, pl_module: LightningModule) -> None:
        """Let the average be the current weights for as long as nothing has been averaged."""
        average = self._average_model
        assert average is not None
        if int(average.n_averaged) == 0:
            for ours, theirs in zip(_tensors(average.module), _tensors(pl_module), strict=True):
                ours.data.copy_(theirs.data)

    def _swap_models(self, pl_module: LightningModule) -> None:
        if not self._swapped:
            self._follow_until_first_update(pl_module)
        super()._swap_models(pl_module)
        self._swapped = not self._swapped
