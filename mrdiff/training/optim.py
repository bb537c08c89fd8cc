"""Optimizers: Muon, that of the recipes, and Lion, that of Refusion."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from mrdiff.system.devices import computes_bf16

# Of Jordan's quintic iteration: the slope at 0 is large, so that small singular values grow fast.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalised(stacks: Sequence[Tensor]) -> list[Tensor]:
    """Float32 ``[K, M, N]`` of the same singular vectors, with all singular values about 1.

    They are between 0.6 and 1.3 but for those that were tiny; zero rows and columns stay zero. The
    stacks may differ in K and in N >= M, not in M: they share most of the work. By the iteration
    of Newton and Schulz, X <- (a + b X X^T + c (X X^T)^2) X, five times, as Jordan et al. tuned it.
    """
    stacks, device = [stack.float() for stack in stacks], stacks[0].device
    if device.type == "cuda" and computes_bf16(device):
        return _iterated(stacks)
    factors = _factors(torch.cat([torch.bmm(stack, stack.mT) for stack in stacks]))
    split = factors.split([len(stack) for stack in stacks])
    return [torch.bmm(factor, stack) for factor, stack in zip(split, stacks, strict=True)]


def _iterated(stacks: Sequence[Tensor]) -> list[Tensor]:
    """The iteration as it is written, which bfloat16 does not harm."""
    a, b, c = _QUINTIC
    widths = [stack.shape[2] for stack in stacks]
    x = torch.cat([nn.functional.pad(s, (0, max(widths) - s.shape[2])) for s in stacks])
    norms = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp_(min=1e-12)
    x = (x / norms).bfloat16()
    for _ in range(_ITERATIONS):
        grams = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(grams, grams, grams, beta=b, alpha=c), x, beta=a)
    split = x.float().split([len(stack) for stack in stacks])
    return [each[..., :width] for each, width in zip(split, widths, strict=True)]


def _factors(grams: Tensor) -> Tensor:
    """What the iteration multiplies X with in all, ``[K, M, M]``, given the first X X^T.

    Its factors are polynomials of that small square matrix, which for a wide X costs a fraction of
    the work on X itself. In full float32 only: errors grow twelvefold at each iteration.
    """
    a, b, c = _QUINTIC
    squares = grams.diagonal(dim1=1, dim2=2).sum(1, keepdim=True).clamp_(min=1e-24).unsqueeze(2)
    grams, product = grams / squares, None
    for left in reversed(range(_ITERATIONS)):
        bent = torch.baddbmm(grams, grams, grams, beta=b, alpha=c)  # the factor is a + bent
        if left:
            half = torch.baddbmm(grams, bent, grams, beta=a)
            grams = torch.baddbmm(half, half, bent, beta=a)
        if product is None:
            product = bent
            product.diagonal(dim1=1, dim2=2).add_(a)
        else:
            product = torch.baddbmm(product, bent, product, beta=a)
    assert product is not None
    return product.mul_(squares.rsqrt())


def _loss(closure: Any) -> Any:
    """What a step's closure computes, with gradients; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _check_betas(betas: tuple[float, float]) -> None:
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be in [0, 1), got {betas}")


class Muon(Optimizer):
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
        if min(lr, adam_lr) < 0:
            raise ValueError(f"lr and adam_lr must not be negative, got {lr}, {adam_lr}")
        _check_betas(betas)
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
        # Fused: torch keeps the steps of a state that it loads where the weights are.
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": 1e-8, "fused": True})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of every weight that has a gradient."""
        loss = _loss(closure)
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                (self._turn if "momentum" in group else self._adam)(weights, group)
        return loss

    def _averages(self, weights: list[Tensor], key: str) -> list[Tensor]:
        for weight in weights:
            if key not in self.state[weight]:
                self.state[weight][key] = torch.zeros_like(weight)
        return [self.state[weight][key] for weight in weights]

    def _adam(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        for weight in weights:
            if "step" not in self.state[weight]:
                self.state[weight]["step"] = torch.zeros(
                    (), dtype=torch.float32, device=weight.device
                )
        first, second = (self._averages(weights, key) for key in ("exp_avg", "exp_avg_sq"))
        adamw(
            *(weights, [weight.grad for weight in weights if weight.grad is not None]),
            *(first, second, [], [self.state[weight]["step"] for weight in weights]),
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )

    def _turn(self, kernels: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [kernel.grad for kernel in kernels if kernel.grad is not None]
        averages = self._averages(kernels, "momentum")
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        directions = torch._foreach_lerp(gradients, averages, group["momentum"])
        alike: defaultdict[torch.Size, list[int]] = defaultdict(list)
        for index, kernel in enumerate(kernels):
            alike[kernel.shape].append(index)
        sides: defaultdict[int, list[torch.Size]] = defaultdict(list)
        for shape in alike:
            sides[min(shape[0], shape[1:].numel())].append(shape)
        for shapes in sides.values():
            joined = [torch.cat([directions[i] for i in alike[shape]]) for shape in shapes]
            wide = [_wide(whole, shape) for whole, shape in zip(joined, shapes, strict=True)]
            for whole, shape, turned in zip(joined, shapes, orthogonalised(wide), strict=True):
                moved = [kernels[i] for i in alike[shape]]
                rows, columns = shape[0], shape[1:].numel()
                update = (turned if rows <= columns else turned.mT).contiguous()
                moves = update.as_strided(whole.shape, whole.stride()).chunk(len(moved))
                size = 0.2 * math.sqrt(max(rows, columns))
                torch._foreach_add_(moved, moves, alpha=-group["lr"] * size)


def _wide(whole: Tensor, shape: torch.Size) -> Tensor:
    """Kernels joined along their rows as ``[K, M, N]``, M <= N, columns in the order of memory."""
    rows, columns = shape[0], shape[1:].numel()
    stack = whole.as_strided((len(whole) // rows, rows, columns), (rows * columns, columns, 1))
    return stack if rows <= columns else stack.mT


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
        _check_betas(betas)
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
