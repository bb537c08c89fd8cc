"""The learning rate over a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class WarmupCosine(LRScheduler):
    """Linear warm-up to the optimizer's rate, then half a cosine down to a share of it, by step.

    Or by ``progress``, the share in [0, 1] of a run's time that has gone by, where it is set: then
    the warm-up is over after a tenth of the time at the latest.

    Args:
        optimizer: whose rates it sets.
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
        self.warmup, self.total, self.final = warmup, total, final
        self.progress: Callable[[], float] | None = None
        super().__init__(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands; its shape belongs to the run, which may be a longer one."""
        shape = ("warmup", "total", "final", "progress")
        return {key: value for key, value in super().state_dict().items() if key not in shape}

    def factor(self, step: int) -> float:
        """The share of the peak rate at a step."""
        warm = min(1.0, (step + 1) / (self.warmup + 1))
        if self.progress is not None:
            progress = self.progress()
            warm = max(warm, min(1.0, 10 * progress))
        elif self.total is None:
            progress = 0.0
        else:
            progress = max(0, step - self.warmup) / max(1, self.total - self.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return warm * (self.final + (1 - self.final) * cosine)

    def get_lr(self) -> list[float | Tensor]:
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]
