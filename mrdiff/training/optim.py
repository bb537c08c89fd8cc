"""The optimizer of the recipes, and a learning-rate schedule: warm-up, then half a cosine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import compress
from typing import Any

import torch
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


# Of Jordan's quintic iteration: the slope at 0 is large, so that small singular values grow fast.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """A matrix of the same singular vectors whose singular values are all about 1.

    The Newton-Schulz iteration X <- (a + b X X^T + c (X X^T)^2) X of Jordan et al., five times. All
    its factors are polynomials of the first X X^T: they are multiplied up in that small square
    matrix, which for a wide matrix costs a fraction of the work.

    Args:
        matrix: ``[M, N]``; zero rows and columns stay zero.

    Returns:
        float32 ``[M, N]``, singular values between 0.6 and 1.3 but for those that were tiny.
    """
    wide = matrix.float() if matrix.shape[0] <= matrix.shape[1] else matrix.float().T
    wide = wide / wide.norm().clamp(min=1e-12)
    gram = wide @ wide.T
    product = torch.eye(len(gram), device=gram.device)
    a, b, c = _QUINTIC
    for left in reversed(range(_ITERATIONS)):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product
        if left:
            gram = factor @ gram @ factor
    result = product @ wide
    return result if matrix.shape[0] <= matrix.shape[1] else result.T


class Muon(AdamW):
    """Orthogonalised momentum for convolutions, Adam for every other weight.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024): a step moves
    all directions of a weight matrix alike, not only the few that dominate its gradient. Scaled as
    by Liu et al., "Muon is scalable for LLM training" (2025, Eq. 4), so that an entry moves by
    about 0.2 ``lr`` whatever the shape. A kernel ``[O, I, H, W]`` is a matrix of O rows.

    Args:
        params: the weights, as ``network.parameters()`` gives them.
        lr: rate of the convolutions.
        momentum: share of the old direction that is kept at each step (Nesterov's form).
        adam_lr: rate of all other weights.
        betas: Adam's two averages, for the other weights.

    Raises:
        ValueError: a rate or share out of its range, or no weights.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float = 4e-3,
        momentum: float = 0.95,
        adam_lr: float = 1.5e-3,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if adam_lr < 0:
            raise ValueError(f"adam_lr must not be negative, got {adam_lr}")
        weights = list(params)
        # A matrix of one row or column has one direction: that is a gain, not a kernel.
        turned = [w.ndim == 4 and w.numel() > len(w) > 1 for w in weights]
        kernels = list(compress(weights, turned))
        others = list(compress(weights, [not yes for yes in turned]))
        groups: list[dict[str, Any]] = [
            {"params": kernels, "lr": lr, "momentum": momentum},
            {"params": others, "lr": adam_lr},
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, lr=lr, betas=betas, weight_decay=0.0)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = {}
        for group in self.param_groups:
            for kernel in group["params"] if "momentum" in group else ():
                if kernel.grad is not None:
                    self._turn(kernel, kernel.grad, group["lr"], group["momentum"])
                    gradients[kernel], kernel.grad = kernel.grad, None
        super().step()  # passes over what has no gradient
        for kernel, gradient in gradients.items():
            kernel.grad = gradient
        return loss

    def _turn(self, kernel: Tensor, gradient: Tensor, lr: float, momentum: float) -> None:
        state = self.state[kernel]
        if not state:
            # Adam, when it loads its state, looks for the step of every weight.
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["momentum"] = torch.zeros_like(kernel)
        state["step"] += 1
        average = state["momentum"].lerp_(gradient, 1 - momentum)
        direction = torch.lerp(gradient, average, momentum).flatten(1)
        size = 0.2 * math.sqrt(max(direction.shape))
        kernel.add_(orthogonalised(direction).view(kernel.shape), alpha=-lr * size)


def default_optimizer(parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Muon at the rates of the small recipes."""
    return Muon(parameters)


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
