"""The block of NAFNet (Chen et al. 2022), told the time as Refusion does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mrdiff.networks.blocks.parts import ChannelNorm


class SimpleGate(nn.Module):
    """The product of both halves of the channels (the second axis)."""

    def forward(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, dim=1)
        return one * two


class NAFBlock(nn.Module):
    """A gated depthwise convolution with channel attention, then a gated layer a pixel.

    Both start by adding nothing; the time acts behind their norms through scale and shift.
    """

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(SimpleGate(), nn.Linear(time_width // 2, 4 * width))
        self.conv1 = nn.Conv2d(width, 2 * width, 1)
        self.conv2 = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.conv3 = nn.Conv2d(width, width, 1)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1))
        self.sg = SimpleGate()
        self.conv4 = nn.Conv2d(width, 2 * width, 1)
        self.conv5 = nn.Conv2d(width, width, 1)
        self.norm1, self.norm2 = ChannelNorm(width), ChannelNorm(width)
        self.beta = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """``film`` ``[B or 1, 4 width]`` is ``mlp`` of the time embedding."""
        shift1, scale1, shift2, scale2 = film[:, :, None, None].chunk(4, dim=1)
        hidden = torch.addcmul(shift1, self.norm1(x), 1 + scale1)
        hidden = self.sg(self.conv2(self.conv1(hidden)))
        x = torch.addcmul(x, self.conv3(hidden * self.sca(hidden)), self.beta)
        hidden = torch.addcmul(shift2, self.norm2(x), 1 + scale2)
        return torch.addcmul(x, self.conv5(self.sg(self.conv4(hidden))), self.gamma)
