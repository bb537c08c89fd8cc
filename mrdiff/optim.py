"""The default optimizer and learning-rate schedule: linear warm-up, then half a cosine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler


class WarmupCosine(LRScheduler):
    """Linear warm-up to the optimizer's rate, then a cosine down to a share of it, by step.

    Args:
        optimizer: the optimizer.
        warmup: steps of the warm-up.
        total: steps of the whole run; None takes the trainer's estimate when it starts.
        final: share of the peak rate at the end, in [0, 1].
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        warmup: int = 100,
        total: int | None = None,
        final: float = 0.02,
    ) -> None:
        if warmup < 0 or not 0 <= final <= 1:
            raise ValueError(f"need warmup >= 0 and final in [0, 1], got {warmup}, {final}")
        self.warmup = warmup
        self.total = total
        self.final = final
        super().__init__(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands; its shape belongs to the run, which may be a longer one."""
        shape = ("warmup", "total", "final")
        return {key: value for key, value in super().state_dict().items() if key not in shape}

    def factor(self, step: int) -> float:
        """The share of the peak rate at a step."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if self.total is None:
            return 1.0
        progress = (step - self.warmup) / max(1, self.total - self.warmup)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def get_lr(self) -> list[float | Tensor]:
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]


def default_optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
    """AdamW with the rate and momenta of the shipped recipes."""
    return AdamW(parameters, lr=1.5e-3, betas=(0.9, 0.99), weight_decay=0.0)


@dataclass(frozen=True)
class Factories:
    """What makes the optimizer and its scheduler; copies of a module, as an average is, share it.

    Behind a configured one stands the whole command line, which cannot be copied once processes
    talk to each other.
    """

    optimizer: OptimizerCallable
    scheduler: LRSchedulerCallable

    def __deepcopy__(self, memo: dict[int, Any]) -> Factories:
        return self
