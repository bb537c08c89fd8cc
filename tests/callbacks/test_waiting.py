"""Between logging steps a training fetches nothing from the device and sends no number to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger

from callbacks import EMA, FiniteLoss, Throughput
from mrdiff import MRDiffusion
from mrdiff.training import Muon
from tests.operations import Count
from tests.tiny_training import loader, tiny_trainer, tiny_unet

# A fetched number, and a tensor made of Python's numbers, which must be sent.
WAITS = ("aten._local_scalar_dense.default", "aten.lift_fresh.default")


class Between(Callback):
    """Counts from behind one logging step to before the next; to be listed last."""

    def __init__(self) -> None:
        self.count, self.counted = Count(), 0

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 5:
            self.count.__enter__()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 9:
            self.count.__exit__(None, None, None)


def test_a_step_waits_for_nothing_until_the_next_logging_step(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, between = MRDiffusion(tiny_unet(), optimizer=Muon), Between()
    trainer = tiny_trainer(
        tmp_path,
        *(EMA(), FiniteLoss(), Throughput(), LearningRateMonitor(), between),
        logger=CSVLogger(tmp_path),
        log_every_n_steps=5,
        max_epochs=1,
        gradient_clip_val=1.0,
        enable_progress_bar=True,
    )
    trainer.fit(module, loader(count=40))
    assert between.count.seen["aten.convolution_backward.default"]
    assert {name: between.count.seen[name] for name in WAITS} == dict.fromkeys(WAITS, 0)
    # The bar shows the loss all the same.
    assert trainer.progress_bar_metrics["train/loss"] == float(trainer.logged_metrics["train/loss"])
