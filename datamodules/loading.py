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

    All from one counter, that of the batches trained since the run began, which its checkpoints
    carry. Lightning's counter of epochs would not do: a run resumed between two epochs skips one.
    """
    limit = trainer.limit_train_batches
    epoch = min(available, limit) if isinstance(limit, int) else int(available * (limit or 1.0))
    total: Any = trainer.fit_loop.epoch_loop.batch_progress.total  # typed as less than it is
    return Position(*divmod(total.processed, max(1, epoch)))


class EpochSampler(DistributedSampler[Any]):
    """Shuffled :class:`SampleKey` triples of this process' share of an epoch.

    A ``DistributedSampler``, so Lightning tells it the epoch and does not wrap it in another.

    Args:
        dataset: what is sampled.
        seed: of the order and of all samples.
        batch_size: of one process; tells how many samples a batch is.
        place: asked where to begin at the start of every pass; None for the beginning of the
            epoch that ``set_epoch`` named.
        processes, rank: how many processes train together, and which of them this is.
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
        self.batch_size = batch_size
        self.place = place

    def __iter__(self) -> Iterator[SampleKey]:
        place = Position(self.epoch, 0) if self.place is None else self.place()
        self.epoch = place.epoch
        order = list(super().__iter__())[place.batches * self.batch_size :]
        return (SampleKey(self.seed, place.epoch, item) for item in order)


class TrainLoader(DataLoader[Sample]):
    """A DataLoader that tells Lightning it can be resumed in the middle of an epoch.

    It has no state: its sampler finds the place from the trainer's counter (:func:`position_of`),
    which, unlike a count kept here, does not run ahead by the batches that workers prefetch.
    """

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


def one_thread(worker: int) -> None:
    """For ``worker_init_fn``: workers that each take all cores fight the training for them."""
    torch.set_num_threads(1)


def automatic_workers(*, accelerated: bool, processes_here: int = 1) -> int:
    """How many workers feed one training process.

    On an accelerator the cores are free for data: all but one, at most 8. On the CPU they are
    busy training: one worker gives more patches than a network on a CPU takes, and on two cores
    it contends with the training threads (``benchmarks/threads.py`` measures it).
    """
    cores = available_cores() // max(1, processes_here)
    if accelerated:
        return max(1, min(8, cores - 1))
    return 1 if cores > 2 else 0
