"""A small network that tells from a degraded image alone what spoilt it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class DegradationClassifier(nn.Module):
    """Strided convolutions, statistics over the whole image, two linear layers.

    What spoils an image may be everywhere (noise) or in a few places (drops): each feature's
    mean, deviation and maximum over the image go to the linear layers, for any image size.

    Args:
        channels: image channels C.
        tasks: number of degradations K.
        widths: channels after each convolution; all but the first halve the size.
    """

    def __init__(
        self, channels: int, tasks: int, *, widths: Sequence[int] = (16, 32, 48, 64, 64)
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(itertools.pairwise((channels, *widths))):
            stride = 1 if i == 0 else 2
            layers += [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(3 * widths[-1], 64), nn.SiLU(), nn.Linear(64, tasks))

    def forward(self, mu: Tensor) -> Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]`` in [0, 1]."""
        features = self.features(2 * mu - 1).flatten(2)
        deviation = features.var(dim=2, correction=0).add(1e-6).sqrt()
        pooled = torch.cat([features.mean(dim=2), deviation, features.amax(dim=2)], dim=1)
        return self.head(pooled)
