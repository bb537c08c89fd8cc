"""How fast training runs, and how much of the time it waits for data."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.loggers import is_logging_step


class Throughput(Callback):
    """Logs ``train/images_per_s`` and ``train/data_wait`` every ``trainer.log_every_n_steps``.

    Both are means over the steps since the last time, validation aside. The first counts the images
    of all processes. The second, in [0, 1], is the share of the time between the end of one step
    and the arrival of the next batch, on the first process; above 0.1 more ``num_workers`` pay.

    Only clocks are read, so the GPU is never waited for: a single interval may be off by the steps
    still queued there. List it last, because callbacks after it run before the next batch.
    ``batch_key`` is the entry of the batch dict whose length is the number of images.
    """

    def __init__(self, *, batch_key: str = "gt") -> None:
        self.batch_key = batch_key
        self._restart()

    def _restart(self) -> None:
        self._images = 0
        self._waited = 0.0
        self._elapsed = 0.0
        self._mark = time.perf_counter()

    def _lap(self) -> float:
        now = time.perf_counter()
        lap, self._mark = now - self._mark, now
        self._elapsed += lap
        return lap

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restart()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not count what lies between epochs (validation, checkpoints)."""
        self._mark = time.perf_counter()

    on_validation_end = on_train_epoch_start

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch has arrived: what went by since the last step was spent waiting."""
        self._waited += self._lap()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._lap()
        self._images += len(batch[self.batch_key])
        if not is_logging_step(trainer):
            return
        metrics = {
            "train/images_per_s": trainer.world_size * self._images / self._elapsed,
            "train/data_wait": self._waited / self._elapsed,
        }
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=step)
        self._restart()
