"""Training losses, and the draw of training times."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from mrdiff.metrics import LPIPS


def stratified_times(
    batch: int,
    generator: torch.Generator | None = None,
    *,
    power: float = 1.0,
    steps: int | None = None,
) -> Tensor:
    """One time in each of ``batch`` equally likely parts of (0, 1], in random order.

    Low variance at no cost: the batch always covers the whole range, and each time alone has the
    density ``power t^(power - 1)`` (Kingma et al. 2021, App. I.1 in the stratified form). Above 1,
    late times are likelier, at which little of the clean image is left to see and the restoration
    proper is learnt. With ``steps`` each time is rounded up to one of k / steps, k = 1..steps.

    Returns:
        float32 ``[batch]`` in (0, 1], on the CPU as the generator: a GPU would be waited for.
    """
    jitter = torch.rand(batch, generator=generator, dtype=torch.float64)
    order = torch.randperm(batch, generator=generator)
    # rand is in [0, 1): counting down from the upper edge gives (0, 1].
    t = ((order + 1 - jitter) / batch).pow(1 / power).clamp(min=1e-6)
    return (t if steps is None else (t * steps).ceil() / steps).float()


class L1(nn.L1Loss):
    """Mean absolute error."""

    def __init__(self) -> None:
        super().__init__()


class L2(nn.MSELoss):
    """Mean squared error."""

    def __init__(self) -> None:
        super().__init__()


# The scaled target of a barely degraded image is near zero: it is not made to weigh without bound.
_LEAST_TARGET = 0.3


class Charbonnier(nn.Module):
    """Mean of sqrt(d² + epsilon²) - epsilon, a smooth L1 (Charbonnier et al. 1994).

    Args:
        epsilon: where it turns from quadratic to linear, in units of what is compared; > 0.
        balance: in [0, 1]; 0 weighs the errors of all images alike. Above, the difference d of each
            image is first divided by its target's root mean square to that power, so that a fog of
            0.2 of the range does not outweigh the traces of JPEG, of 0.04; 1 is a relative loss.
    """

    def __init__(self, *, epsilon: float = 0.01, balance: float = 0.0) -> None:
        super().__init__()
        if not epsilon > 0:
            raise ValueError(f"epsilon must be positive, got {epsilon}")
        if not 0 <= balance <= 1:
            raise ValueError(f"balance must be in [0, 1], got {balance}")
        self.epsilon = epsilon
        self.balance = balance

    def forward(self, out: Tensor, target: Tensor) -> Tensor:
        """Both ``[B, C, H, W]``; returns a 0-dim tensor."""
        difference = out - target
        if self.balance:
            size = target.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
            difference = difference / size.clamp(min=_LEAST_TARGET) ** self.balance
        return (torch.sqrt(difference.square() + self.epsilon**2) - self.epsilon).mean()


class Perceptual(nn.Module):
    """Charbonnier's loss of images, and a part of what the eye sees of their difference.

    That is LPIPS where its weights are (:meth:`mrdiff.metrics.LPIPS.find`). Elsewhere, and
    for patches too small for it, it is the mean absolute difference of the gradients, on the image
    and on three halvings of it.

    Args:
        epsilon: of :class:`Charbonnier`, in units of an image's range; > 0.
        weight: of that part; >= 0.
        lpips_weights: file with AlexNet's features; None looks for it.

    Raises:
        WeightsError: there is no such file.
    """

    images = True  # what it compares has to be

    def __init__(
        self, *, epsilon: float = 0.05, weight: float = 0.03, lpips_weights: str | None = None
    ) -> None:
        super().__init__()
        if not weight >= 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        self.weight, self.charbonnier = weight, Charbonnier(epsilon=epsilon)
        found = LPIPS.find(lpips_weights) if weight else None
        # In a tuple it is no part of the model: neither saved nor averaged.
        self._lpips = () if found is None else (found.requires_grad_(False),)

    def forward(self, out: Tensor, target: Tensor) -> Tensor:
        """Both ``[B, C, H, W]``, images in [0, 1]; returns a 0-dim tensor."""
        loss: Tensor = self.charbonnier(out, target)
        if not self.weight:
            return loss
        if self._lpips and out.shape[1] == 3 and min(out.shape[-2:]) >= LPIPS.min_size:
            seen = self._lpips[0].to(out.device)(out, target).mean()
        else:
            seen = gradient_difference(out - target)
        return loss + self.weight * seen


def gradient_difference(difference: Tensor, *, halvings: int = 3) -> Tensor:
    """The sum of the mean absolute gradients of ``[B, C, H, W]`` and of its halvings.

    There are as many of them as there is room for.
    """
    total = difference.new_zeros(())
    for _ in range(halvings + 1):
        if min(difference.shape[-2:]) < 2:
            break
        total = total + sum(difference.diff(dim=dim).abs().mean() for dim in (-2, -1))
        difference = avg_pool2d(difference, 2)
    return total
