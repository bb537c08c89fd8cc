"""The LightningDataModule: up to four datasets, and loaders whose order is fixed by the seed."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from datamodules.datasets.base import RestorationDataset, Sample
from datamodules.degradations import Degradation
from datamodules.errors import DataError
from datamodules.loading import (
    EpochSampler,
    TrainLoader,
    automatic_workers,
    one_thread,
    position_of,
)

_STAGE_SETS = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("predict",),
}


class RestorationData(pl.LightningDataModule):
    """Training, validation, test and prediction data for image restoration.

    Args:
        train, val, test, predict: datasets; each is needed only in its stage.
        root, degradation: not used here; configs write a folder and a degradation once, where the
            datasets find them (``${data.root}``, ``${data.degradation}``).
        batch_size: training samples a process and step.
        val_batch_size: outside training; above 1 all images must have one size.
        num_workers: loader processes; 0 loads in the training process, and "auto" is
            :func:`datamodules.loading.automatic_workers`.
        seed: of the order of the training data, its crops and its degradations.

    Raises:
        ValueError: a batch size below 1, or a negative number of workers or seed.
    """

    def __init__(
        self,
        train: RestorationDataset | None = None,
        val: RestorationDataset | None = None,
        test: RestorationDataset | None = None,
        predict: RestorationDataset | None = None,
        *,
        root: str | None = None,
        degradation: Degradation | None = None,
        batch_size: int = 16,
        val_batch_size: int = 1,
        num_workers: int | Literal["auto"] = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(batch_size, val_batch_size) < 1:
            raise ValueError("batch_size and val_batch_size must be at least 1")
        if seed < 0 or (num_workers != "auto" and num_workers < 0):
            raise ValueError("seed and num_workers must not be negative")
        self.sets = {"train": train, "val": val, "test": test, "predict": predict}
        self.root, self.degradation = root, degradation
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        self.num_workers, self.seed = num_workers, seed

    @property
    def tasks(self) -> tuple[str, ...]:
        """What ``degradation`` numbers in the samples of this stage; none for most."""
        return self._tasks_of(self._stage())

    def _tasks_of(self, stage: str | None) -> tuple[str, ...]:
        named = [dataset.tasks for dataset in self._of_stage(stage) if dataset.tasks]
        return named[0] if named else ()

    def prepare_data(self) -> None:
        """Once a machine."""
        for dataset in self._of_stage(self._stage()):
            dataset.prepare()

    def setup(self, stage: str) -> None:
        """Check the datasets of a stage.

        Raises:
            DataError: one is missing from the config, or its files cannot be used.
        """
        self._dataset(_STAGE_SETS[stage][0])
        for dataset in self._of_stage(stage):
            dataset.check()
            if dataset.tasks != (tasks := self._tasks_of(stage)):
                here, there = ", ".join(dataset.tasks) or "none", ", ".join(tasks)
                differ = f"data.train and data.val differ in their tasks ({here}; {there})"
                raise DataError(f"{differ}: name the same ones in the same order")

    def train_dataloader(self) -> TrainLoader:
        """Shuffled batches, from where the trainer stands."""
        dataset, trainer = self._dataset("train"), self.trainer
        processes, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
        sampler = EpochSampler(
            dataset, seed=self.seed, batch_size=self.batch_size, processes=processes, rank=rank
        )
        loader = TrainLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=len(sampler) >= self.batch_size,  # but a small set is still one batch
            **self._loading(),
        )
        if trainer is not None:
            sampler.place = partial(position_of, trainer, len(loader))
        return loader

    def val_dataloader(self) -> DataLoader[Sample] | list[DataLoader[Sample]]:
        """Nothing if there is no validation set."""
        return [] if self.sets["val"] is None else self._in_order("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        return self._in_order("test")

    def predict_dataloader(self) -> DataLoader[Sample]:
        return self._in_order("predict")

    def _in_order(self, role: str) -> DataLoader[Sample]:
        return DataLoader(
            self._dataset(role), batch_size=self.val_batch_size, shuffle=False, **self._loading()
        )

    def _loading(self) -> dict[str, Any]:
        trainer, workers = self.trainer, self.num_workers
        accelerated = trainer is not None and trainer.strategy.root_device.type != "cpu"
        if workers == "auto":
            here = 1 if trainer is None else trainer.num_devices
            workers = automatic_workers(accelerated=accelerated, processes_here=here)
        return {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "worker_init_fn": one_thread,
            "pin_memory": accelerated and torch.cuda.is_available(),
        }

    def _dataset(self, role: str) -> RestorationDataset:
        dataset = self.sets[role]
        if dataset is None:
            raise DataError(f"the data has no {role} set; give data.{role} in the config")
        return dataset

    def _stage(self) -> str | None:
        state = None if self.trainer is None else self.trainer.state.fn
        return None if state is None else str(state.value)

    def _of_stage(self, stage: str | None) -> list[RestorationDataset]:
        """The datasets of a stage, or all of them, without those that were not given."""
        roles = _STAGE_SETS.get(stage or "", tuple(self.sets))
        return [dataset for role in roles if (dataset := self.sets[role]) is not None]
