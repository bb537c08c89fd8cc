"""Several restorations of one photo: their mean, and how far they are apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mrdiff.diffusion.path import GaussianPath
from mrdiff.solvers.run import Sampler

__all__ = ["Ensemble", "check_spread", "draw", "numbered"]


class Ensemble(NamedTuple):
    """Mean and standard deviation of K restorations, ``[B, C, H, W]`` each, pixel by pixel.

    The deviation is small where the degraded image says what was there.
    """

    mean: Tensor
    std: Tensor


def check_spread(sampler: Sampler, path: GaussianPath, samples: int) -> None:
    """Raise ValueError for no sample, or for several without noise: all are alike."""
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    if samples > 1 and sampler.temperature == 0:
        raise ValueError(
            "the sampler draws no noise (temperature 0), so that all samples are alike: "
            "use another, such as perceptual or mr-sde-1, or a temperature of 1"
        )
    if samples > 1 and not path.noise:
        kind = type(path).__name__
        raise ValueError(f"the path of this model, {kind}, has no noise: all samples are alike")


def numbered(name: str, index: int) -> str:
    """What the noise of a photo's sample is drawn from; that of the first is the photo's own."""
    return f"{name}#{index}" if index else name


def draw(restore: Callable[[int], Tensor], samples: int) -> Ensemble:
    """Mean and deviation of ``restore(0)``, ``restore(1)``, ..., two images in memory at a time.

    Of a single sample the deviation is 0.
    """
    mean = restore(0)
    if samples == 1:
        return Ensemble(mean, mean.new_zeros(()).expand_as(mean))
    squares = torch.zeros_like(mean)
    for index in range(1, samples):
        image = restore(index)
        off = image - mean
        mean = mean + off / (index + 1)  # Welford's recursion: no sum of squares that cancels
        squares += off * (image - mean)
    return Ensemble(mean, (squares / (samples - 1)).sqrt_())
