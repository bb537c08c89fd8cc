"""Random weights in the layout of published files, for metrics that compare features."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

# Of each convolution its number among the layers, and its shape.
ALEXNET = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3)}
ALEXNET[10] = (256, 256, 3, 3)
VGG16 = {0: (64, 3, 3, 3), 2: (64, 64, 3, 3), 5: (128, 64, 3, 3), 7: (128, 128, 3, 3)}
VGG16 |= {10: (256, 128, 3, 3), 12: (256, 256, 3, 3), 14: (256, 256, 3, 3)}
VGG16 |= {17: (512, 256, 3, 3)} | dict.fromkeys((19, 21, 24, 26, 28), (512, 512, 3, 3))


def random_features(shapes: dict[int, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for index, shape in shapes.items():
        scale = math.sqrt(2 / math.prod(shape[1:]))
        state[f"features.{index}.weight"] = scale * torch.randn(shape, generator=generator)
        state[f"features.{index}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    return state


def write_random_features(path: Path, shapes: dict[int, tuple[int, ...]]) -> Path:
    """With a part of the classifier, as official files have it."""
    torch.save({**random_features(shapes), "classifier.1.weight": torch.zeros(2, 2)}, path)
    return path


def random_inception(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Of FID's Inception, whose convolutions have these shapes."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    state = {"fc.bias": torch.zeros(1008)}
    for layer, shape in shapes.items():
        scale = math.sqrt(24 / math.prod(shape[1:]))
        state[f"{layer}.conv.weight"] = scale * (uniform(*shape) - 0.5)
        for key in ("bn.weight", "bn.running_var"):
            state[f"{layer}.{key}"] = 0.5 + uniform(shape[0])
        for key in ("bn.bias", "bn.running_mean"):
            state[f"{layer}.{key}"] = 0.4 * (uniform(shape[0]) - 0.5)
    return state
