"""Lion, the optimizer of Refusion: steps of one size along the sign of a momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Lion(Optimizer):
    """Evolved sign momentum (Chen et al., "Symbolic discovery of optimization algorithms", 2023).

    Every weight moves by ``lr`` at every step, whatever the size of its gradient: rates are three
    to ten times smaller than Adam's. It keeps one average a weight where Adam keeps two.

    Args:
        params: the weights, as ``network.parameters()`` gives them.
        lr: by how much a weight moves.
        betas: share of the average in the direction of a step, and share of it that is kept.
        weight_decay: share of a weight, times ``lr``, that is taken away at each step.

    Raises:
        ValueError: a number out of its range, or no weights.
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
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
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
