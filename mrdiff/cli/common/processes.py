"""A run of several processes: Lightning starts them, or finds them, and deals out the work.

Every process plans the same run, does its share, and sends what became of it to the first, which
alone goes on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mrdiff.system.cores import available_cores
from mrdiff.system.devices import leave_group_at_exit

__all__ = ["spread_out"]

T = TypeVar("T")
R = TypeVar("R")


class _Share(LightningModule, Generic[T, R]):
    """Lightning moves the network to the device of the process and hands over its items."""

    def __init__(self, network: nn.Module, items: Sequence[T], work: Callable[[list[T]], R]):
        super().__init__()
        self.network = network
        self.results = list[R]()  # one, or none for lack of items
        self._items, self._work = items, work

    def predict_step(self, batch: Tensor, batch_idx: int) -> None:
        """Do all the work of this process; the batch has the numbers of its items."""
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, available_cores() // self.trainer.num_devices))
        self.results.append(self._work([self._items[index] for index in batch.tolist()]))


def spread_out(
    network: nn.Module,
    items: Sequence[T],
    work: Callable[[list[T]], R],
    *,
    device: str,
    devices: int,
    nodes: int,
) -> list[R] | None:
    """Work on the items in ``devices`` processes on each of ``nodes`` machines.

    The network, which ``work`` uses, is on the CPU; a process has one GPU if ``device`` is one. All
    processes have the same items in the same order. The results of all, in the first process; None
    in all others.
    """
    leave_group_at_exit()
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    trainer = Trainer(
        accelerator="gpu" if device.startswith("cuda") else device,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp",
        inference_mode=False,  # as in one process
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    # One batch a process. Lightning's sampler for predictions repeats nothing to make shares even.
    numbers: DataLoader[int] = DataLoader(list(range(len(items))), batch_size=len(items))  # type: ignore[arg-type]
    share = _Share(network, items, work)
    trainer.predict(share, numbers, return_predictions=False)
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, share.results)
    return [one for results in gathered for one in results] if trainer.is_global_zero else None
