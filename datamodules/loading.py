"""Loading in a fixed order: epoch and index go with every sample, and an epoch can be continued.

Lightning restores the position of its loops but not that of the data: a resumed run would see the
epoch from its start. Here the sampler starts where the restored loops stand, without loading what
was already seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, DistributedSampler

from datamodules.datasets.base import RestorationDataset, Sample
from datamodules.randomness import SampleKey
from mrdiff.system.cores import available_cores


class Position(NamedTuple):
    """A place in the training data: ``batches`` of ``epoch`` have been used."""

    epoch: int
    batches: int


def position_of(trainer: Trainer, available: int) -> Position:
    """Where a trainer stands that has ``available`` training batches an epoch.

    From its counter of batches since the run began, which checkpoints carry. The counter of epochs
    would not do: a run resumed between two epochs skips one.
    """
    limit = trainer.limit_train_batches
    epoch = min(available, limit) if isinstance(limit, int) else int(available * (limit or 1.0))
    total: Any = trainer.fit_loop.epoch_loop.batch_progress.total  # typed as less than it is
    return Position(*divmod(total.processed, max(1, epoch)))


class EpochSampler(DistributedSampler[Any]):
    """Shuffled :class:`SampleKey` triples of this process' share of an epoch.

    A ``DistributedSampler``: Lightning sets its epoch and does not wrap it in another. ``place``
    is asked at the start of every pass where to begin; without it a pass begins at the start of
    the epoch that ``set_epoch`` named. ``batch_size`` is that of one process.
    """

    def __init__(
        self,
        dataset: RestorationDataset,
        *,
        seed: int,
        batch_size: int,
        place: Callable[[], Position] | None = None,
        processes: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas=processes, rank=rank, shuffle=True, seed=seed)
        self.batch_size, self.place = batch_size, place

    def __iter__(self) -> Iterator[SampleKey]:
        place = Position(self.epoch, 0) if self.place is None else self.place()
        self.epoch = place.epoch
        order = list(super().__iter__())[place.batches * self.batch_size :]
        return (SampleKey(self.seed, place.epoch, item) for item in order)


class TrainLoader(DataLoader[Sample]):
    """A DataLoader that Lightning may resume in the middle of an epoch, without a state.

    Its sampler finds the place from the trainer's counter (:func:`position_of`), which, unlike a
    count of batches loaded, does not run ahead by those that workers prefetch.
    """

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def one_thread(worker: int) -> None:
    """A ``worker_init_fn``: workers that each take all cores fight the training for them."""
    torch.set_num_threads(1)


def automatic_workers(*, accelerated: bool, processes_here: int = 1) -> int:
    """How many workers feed one training process.

    On an accelerator the cores are free for data: all but one, at most 8. On the CPU they are
    busy training: one worker gives more patches than a network on a CPU takes, and on two cores
    it contends with the training threads (``benchmarks/threads.py`` measures it).
    """
    cores = available_cores() // max(1, processes_here)
    return max(1, min(8, cores - 1)) if accelerated else int(cores > 2)
