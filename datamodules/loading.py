"""Loading in a fixed order: epoch and index go with every sample, and an epoch can be continued.

Lightning restores the position of its loops but not that of the data: a resumed run would see the
epoch from its start. Here the sampler starts where the restored loops stand, without loading what
was already seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, DistributedSampler, SequentialSampler

from datamodules.datasets.base import RestorationDataset
from datamodules.randomness import SampleKey
from mrdiff.system.cores import available_cores


class Position(NamedTuple):
    """A place in the training data: all processes together have used ``samples`` of ``epoch``."""

    epoch: int
    samples: int


class Course(NamedTuple):
    """How a run goes through its training data, counted in samples: batches may change in size.

    It goes on from ``start``, where it had trained on ``batches`` since it began: 0, or what the
    checkpoint says that is resumed.
    """

    start: Position = Position(0, 0)
    batches: int = 0

    def left(self, epoch: int, size: int) -> int:
        """How many batches of ``size`` the first epoch has left if a whole one has ``epoch``."""
        return max(0, epoch * size - self.start.samples) // size

    def at(self, batches: int, epoch: int, size: int) -> Position:
        """Where it is after ``batches`` since it began."""
        # A loader may be asked before Lightning restores its counter.
        since, left = max(0, batches - self.batches), self.left(epoch, size)
        if since < left:
            return Position(self.start.epoch, self.start.samples + since * size)
        epochs, within = divmod(since - left, max(1, epoch))
        return Position(self.start.epoch + 1 + epochs, within * size)


def epoch_batches(trainer: Trainer, available: int) -> int:
    """How many of the ``available`` training batches of an epoch are used."""
    limit = trainer.limit_train_batches
    return min(available, limit) if isinstance(limit, int) else int(available * (limit or 1.0))


def batches_trained(trainer: Trainer) -> int:
    """Since the run began: from a counter that checkpoints carry.

    The counter of epochs would not do: a run resumed between two epochs skips one.
    """
    total: Any = trainer.fit_loop.epoch_loop.batch_progress.total  # typed as less than it is
    return int(total.processed)


def recount(trainer: Trainer, epoch: int, left: int) -> bool:
    """Let Lightning's loop see ``left`` of ``epoch`` batches before it; whether it did not yet.

    The counter it restores is of batches as they were. If none is left, a whole epoch is.
    """
    current: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    epochs: Any = trainer.fit_loop.epoch_progress.current
    # Behind an epoch that was finished, its batches are those of the next one no more.
    under_way = epochs.ready != epochs.processed
    stands = current.processed % epoch if under_way else current.processed
    if stands == (epoch - left) % epoch:
        return False
    shift = (epoch - left) % epoch - current.processed
    for name in ("ready", "started", "processed", "completed"):
        setattr(current, name, getattr(current, name) + shift)
    return True


class EpochSampler(DistributedSampler[Any]):
    """Shuffled :class:`SampleKey` triples of this process' share of an epoch.

    A ``DistributedSampler``: Lightning sets its epoch and does not wrap it in another. ``place``
    is asked at the start of every pass where to begin; without it a pass begins at the start of
    the epoch that ``set_epoch`` named.
    """

    def __init__(
        self,
        dataset: RestorationDataset,
        *,
        seed: int,
        place: Callable[[], Position] | None = None,
        processes: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas=processes, rank=rank, shuffle=True, seed=seed)
        self.place = place

    def __iter__(self) -> Iterator[SampleKey]:
        place = Position(self.epoch, 0) if self.place is None else self.place()
        self.epoch = place.epoch
        order = self._order()[place.samples :]
        share = order[self.rank : len(order) - len(order) % self.num_replicas : self.num_replicas]
        return (SampleKey(self.seed, place.epoch, item) for item in share)

    def _order(self) -> list[int]:
        """All indices in the order of this epoch, the first ones again to make shares equal."""
        whole: DistributedSampler[int] = DistributedSampler(
            self.dataset, 1, 0, shuffle=True, seed=self.seed
        )
        whole.set_epoch(self.epoch)
        return list(islice(cycle(whole), self.total_size))


class FirstEpochSampler(EpochSampler, SequentialSampler):  # type: ignore[misc]
    """The same, for runs with ``overfit_batches``, whose ``place`` is always in the first epoch.

    Lightning replaces any sampler but a ``SequentialSampler`` in such a run.
    """


class InOrder(DistributedSampler[Any], SequentialSampler):
    """This process' share of the indices: in order, and each index in one process alone.

    ``DistributedSampler`` itself fills the shares up to one length, which counts images twice.
    Here they differ by up to one. Where there are fewer images than processes, all of them go
    through all: means are right too, and no process stands idle while others wait for it.
    """

    def __init__(self, dataset: RestorationDataset, *, processes: int, rank: int) -> None:
        length = len(dataset)
        if length < processes:
            processes, rank = 1, 0
        super().__init__(dataset, num_replicas=processes, rank=rank, shuffle=False)
        self.share = range(rank, length, processes)

    def __iter__(self) -> Iterator[int]:
        return iter(self.share)

    def __len__(self) -> int:
        return len(self.share)


class TrainLoader(DataLoader[Any]):
    """A DataLoader that Lightning may resume in the middle of an epoch, without a state.

    Its sampler finds the place from the trainer's counter (:func:`batches_trained`), which, unlike
    a count of batches loaded, does not run ahead by those that workers prefetch.
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

    On an accelerator the cores are free for data: all but one. On the CPU they are busy training:
    one worker gives more patches than a network on a CPU takes, and on two cores it contends with
    the training threads (``benchmarks/threads.py`` measures it).
    """
    cores = available_cores() // max(1, processes_here)
    return max(1, cores - 1) if accelerated else int(cores > 2)
