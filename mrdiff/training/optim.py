"""Optimizers: Muon, that of the recipes, and Lion, that of Refusion; and the learning rate."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

# Of Jordan's quintic iteration: the slope at 0 is large, so that small singular values grow fast.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """Float32 ``[M, N]`` of the same singular vectors, with all singular values about 1.

    They are between 0.6 and 1.3 but for those that were tiny; zero rows and columns stay zero. The
    Newton-Schulz iteration X <- (a + b X X^T + c (X X^T)^2) X of Jordan et al., five times. All its
    factors are polynomials of the first X X^T: they are multiplied up in that small square matrix,
    which for a wide matrix costs a fraction of the work.
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


def _loss(closure: Any) -> Any:
    """What a step's closure computes, with gradients; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class Muon(AdamW):
    """Orthogonalised momentum for convolutions, Adam for every other weight.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024): a step moves
    all directions of a weight matrix alike, not only the few that dominate its gradient. Scaled as
    by Liu et al., "Muon is scalable for LLM training" (2025, Eq. 4), so that an entry moves by
    about 0.2 ``lr`` whatever the shape. A kernel ``[O, I, H, W]`` is a matrix of O rows.

    Args:
        params: the weights, as ``network.parameters()`` gives them.
        lr: rate of the convolutions.
        momentum: share of the old direction in the new one (Nesterov's form), in [0, 1).
        adam_lr: rate of all other weights.
        betas: Adam's two averages, for the other weights.
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
        loss = _loss(closure)
        gradients = {}
        for group in self.param_groups:
            for kernel in group["params"] if "momentum" in group else ():
                if kernel.grad is not None:
                    self._turn(kernel, kernel.grad, group["lr"], group["momentum"])
                    gradients[kernel], kernel.grad = kernel.grad, None
        # Adam passes over what has no gradient. Unwrapped: torch calls the step's hooks around
        # this method, and again around Adam's own.
        inspect.unwrap(AdamW.step)(self)
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


class Lion(Optimizer):
    """Evolved sign momentum (Chen et al., "Symbolic discovery of optimization algorithms", 2023).

    Every weight moves by ``lr`` at every step, whatever the size of its gradient: rates are three
    to ten times smaller than Adam's.

    Args:
        params: the weights, or groups of them.
        lr: by how much a weight moves.
        betas: share of the average in the direction of a step, and in the next average; in [0, 1).
        weight_decay: share of a weight, times ``lr``, that is taken away at each step.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        if min(lr, weight_decay) < 0:
            raise ValueError(f"lr and weight_decay must not be negative, got {lr}, {weight_decay}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), got {betas}")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of every weight that has a gradient."""
        loss = _loss(closure)
        for group in self.param_groups:
            self._move(group)
        return loss

    def _move(self, group: dict[str, Any]) -> None:
        """Algorithm 2 of the paper; all weights at once, as thousands of small calls are slow."""
        weights: list[Tensor] = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["average"] = torch.zeros_like(weight)
        averages = [self.state[weight]["average"] for weight in weights]
        lr, (look, keep) = group["lr"], group["betas"]
        directions = torch._foreach_lerp(averages, gradients, 1 - look)
        torch._foreach_sign_(directions)
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        torch._foreach_add_(weights, directions, alpha=-lr)
        torch._foreach_lerp_(averages, gradients, 1 - keep)


class WarmupCosine(LRScheduler):
    """Linear warm-up to the optimizer's rate, then half a cosine down to a share of it, by step.

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
