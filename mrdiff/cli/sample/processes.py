"""A run of several processes: Lightning starts them, or finds them, and deals out the photos.

Every process plans the same run, restores its share, and sends what became of it to the first,
which alone goes on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from mrdiff.cli.common.jobs import Job
from mrdiff.cli.sample.photos import Outcome
from mrdiff.restoration.restorer import Restorer
from mrdiff.system.cores import available_cores
from mrdiff.system.devices import leave_group_at_exit

__all__ = ["restore_spread"]

Work = Callable[[list[Job]], Outcome]


class _Share(LightningModule):
    """Lightning moves the network to the device of the process and hands over its photos."""

    def __init__(self, restorer: Restorer, jobs: list[Job], work: Work) -> None:
        super().__init__()
        self.denoiser = restorer.denoiser
        self.outcome = Outcome()
        self._jobs, self._work = jobs, work

    def predict_step(self, batch: Tensor, batch_idx: int) -> None:
        """Restore all photos of this process; the batch has their numbers."""
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, available_cores() // self.trainer.num_devices))
        self.outcome = self._work([self._jobs[index] for index in batch.tolist()])


def restore_spread(
    restorer: Restorer,
    jobs: list[Job],
    work: Work,
    *,
    device: str,
    devices: int,
    nodes: int,
) -> Outcome | None:
    """Restore the jobs in ``devices`` processes on each of ``nodes`` machines.

    The model is on the CPU; a process has one GPU if ``device`` is one. All processes have the
    same jobs in the same order, of which ``work`` restores some. None but in the first process.
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
    numbers: DataLoader[int] = DataLoader(list(range(len(jobs))), batch_size=len(jobs))  # type: ignore[arg-type]
    share = _Share(restorer, jobs, work)
    trainer.predict(share, numbers, return_predictions=False)
    outcomes = [Outcome()] * trainer.world_size
    torch.distributed.all_gather_object(outcomes, share.outcome)
    if not trainer.is_global_zero:
        return None
    whole = Outcome()
    for outcome in outcomes:
        whole.add(outcome)
    return whole
