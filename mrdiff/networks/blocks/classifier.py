"""A small network that recognises the degradation of an image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mrdiff.networks.blocks.convolution import Conv


class PixelNorm(nn.Module):
    """Every pixel's channels at mean 0 and deviation 1, without weights of its own."""

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to the same shape."""
        return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],)).permute(0, 3, 1, 2)


class DegradationClassifier(nn.Module):
    """Strided convolutions, statistics over the whole image, two linear layers.

    What degrades an image may be everywhere (noise) or in a few places (drops): each feature's mean
    and deviation over the image count. A maximum would grow with the image.

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
            convolution = Conv(inputs, outputs, 3, stride=stride, padding=1)
            layers += [convolution, PixelNorm(), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(2 * widths[-1], 64), nn.SiLU(), nn.Linear(64, tasks))

    def forward(self, mu: Tensor) -> Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]`` in [0, 1]."""
        images = mu.to(next(self.parameters()).dtype)
        features = self.features(2 * images - 1).flatten(2)
        deviation = features.var(dim=2, correction=0).add(1e-6).sqrt()
        return self.head(torch.cat([features.mean(dim=2), deviation], dim=1))
