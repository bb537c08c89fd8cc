"""The LightningDataModule: up to four datasets, and loaders whose order is fixed by the seed."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from datamodules.batches import Checked, Collate, check_sizes_of
from datamodules.checks import blaming, class_path
from datamodules.datasets.base import RestorationDataset
from datamodules.datasets.degraded import CleanDataset
from datamodules.degradations import Degradation
from datamodules.errors import DataError
from datamodules.loading import (
    Course,
    EpochSampler,
    FirstEpochSampler,
    InOrder,
    Position,
    TrainLoader,
    automatic_workers,
    batches_trained,
    epoch_batches,
    one_thread,
    recount,
)
from datamodules.on_device import Pack, completed
from datamodules.randomness import SampleKey

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
            :func:`datamodules.loading.automatic_workers`, at most one a batch.
        seed: of the order of the training data, its crops and its degradations.
        degrade_on: where training patches are degraded: by the workers that read them, or a batch
            at a time on the training device, which workers then send clean patches. "auto" is the
            device on CUDA. Degradations that need the CPU, JPEG among ours, stay with the workers.

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
        degrade_on: Literal["auto", "workers", "device"] = "auto",
    ) -> None:
        super().__init__()
        if min(batch_size, val_batch_size) < 1:
            raise ValueError("batch_size and val_batch_size must be at least 1")
        if seed < 0 or (num_workers != "auto" and num_workers < 0):
            raise ValueError("seed and num_workers must not be negative")
        self.sets = {"train": train, "val": val, "test": test, "predict": predict}
        self.root, self.degradation = root, degradation
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        self.num_workers, self.seed, self.degrade_on = num_workers, seed, degrade_on
        self._course, self._resumed = Course(), dict[str, int]()

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
        for role in _STAGE_SETS[stage]:
            if self.sets[role] is not None:
                self.try_out(role)

    def try_out(self, role: str) -> None:
        """Raise :class:`DataError` if the first sample of a set is wrong, or batches would be."""
        dataset = self._dataset(role)
        with blaming(class_path(dataset)):
            length = len(dataset)
        if not length:
            raise DataError(f"data.{role}: {class_path(dataset)} has no samples")
        if (self.batch_size if role == "train" else self.val_batch_size) > 1:
            check_sizes_of(dataset.sources(), role)
        if (
            role == "train"
            and self.degrade_on == "device"
            and not isinstance(dataset, CleanDataset)
        ):
            whole = f"data.degrade_on device, but {class_path(dataset)} makes whole samples"
            raise DataError(f"{whole}: give auto or workers")
        self._checked(role)[SampleKey(self.seed, 0, 0) if role == "train" else 0]

    def train_dataloader(self) -> TrainLoader:
        """Shuffled batches, from where the trainer stands."""
        dataset, trainer = self._dataset("train"), self.trainer
        processes, rank = self._processes()
        overfit = getattr(trainer, "overfit_batches", 0) > 0
        kind = FirstEpochSampler if overfit else EpochSampler
        sampler = kind(dataset, seed=self.seed, processes=processes, rank=rank)
        cuda = trainer is not None and trainer.strategy.root_device.type == "cuda"
        apart = self.degrade_on == "device" or (self.degrade_on == "auto" and cuda)
        loader = TrainLoader(
            self._checked("train", apart=apart),
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=len(sampler) >= self.batch_size,  # but a small set is still one batch
            collate_fn=Pack("train", together=cuda) if apart else Collate("train"),
            **self._loading(math.ceil(len(sampler) / self.batch_size)),
        )
        if trainer is not None:
            sampler.place = self._place
        return loader

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Degrade what the workers left clean; see ``degrade_on``."""
        train, trainer = self.sets["train"], self.trainer
        whole = batch if train is None else completed(batch, train.degradation)
        if trainer is None or whole is batch:
            return whole
        return trainer.precision_plugin.convert_input(whole)  # which saw bytes alone before

    def _epoch(self, trainer: pl.Trainer) -> tuple[int, int]:
        """How many batches an epoch has, and how many samples one of them for all processes."""
        share = math.ceil(len(self._dataset("train")) / trainer.world_size)
        batches = max(1, share // self.batch_size)
        return epoch_batches(trainer, batches), self.batch_size * trainer.world_size

    def _place(self) -> Position:
        trainer = self.trainer
        assert trainer is not None
        place = self._course.at(batches_trained(trainer), *self._epoch(trainer))
        overfit = getattr(trainer, "overfit_batches", 0) > 0
        return place._replace(epoch=0) if overfit else place

    def state_dict(self) -> dict[str, int]:
        """Where a training run stands in its data."""
        trainer = self.trainer
        if trainer is None or self.sets["train"] is None:
            return {}
        length, size = len(self._dataset("train")), self._epoch(trainer)[1]
        counted = {"batches": batches_trained(trainer), "size": size, "length": length}
        return {**self._place()._asdict(), **counted}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on there; see :meth:`recount`."""
        self._resumed = state
        self._course = Course(Position(state["epoch"], state["samples"]), state["batches"])

    def recount(self) -> list[str]:
        """Fit Lightning's restored loop to the batches of this run; what there is to say of it."""
        trainer, before = self.trainer, self._resumed
        if trainer is None or not before:
            return []
        (epoch, size), length = self._epoch(trainer), len(self._dataset("train"))
        recount(trainer, epoch, self._course.left(epoch, size))
        said = []
        if size != before["size"]:
            place = f"sample {before['samples']} of epoch {before['epoch']}"
            said.append(f"batches of {size} (before: {before['size']}) go on behind {place}")
        if length != before["length"]:
            said.append(
                f"{length} training samples (before: {before['length']}): some of epoch "
                f"{before['epoch']} may come twice"
            )
        return said

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Nothing if there is no validation set."""
        return [] if self.sets["val"] is None else self._in_order("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self._in_order("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        return self._in_order("predict")

    def _in_order(self, role: str) -> DataLoader[Any]:
        processes, rank = self._processes()
        sampler = InOrder(self._dataset(role), processes=processes, rank=rank)
        return DataLoader(
            self._checked(role),
            batch_size=self.val_batch_size,
            sampler=sampler,
            collate_fn=Collate(role),
            **self._loading(math.ceil(len(sampler) / self.val_batch_size)),
        )

    def _processes(self) -> tuple[int, int]:
        """How many train together, and which this is."""
        trainer = self.trainer
        return (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)

    def _checked(self, role: str, *, apart: bool = False) -> Checked:
        network: Any = getattr(getattr(self.trainer, "lightning_module", None), "network", None)
        channels = int(getattr(network, "channels", 3))
        paired = role != "predict"
        return Checked(self._dataset(role), channels=channels, paired=paired, apart=apart)

    def _loading(self, batches: int) -> dict[str, Any]:
        trainer, workers = self.trainer, self.num_workers
        accelerated = trainer is not None and trainer.strategy.root_device.type != "cpu"
        if workers == "auto":
            here = 1 if trainer is None else trainer.num_devices
            most = automatic_workers(accelerated=accelerated, processes_here=here)
            workers = min(most, batches)  # more would only be started
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
