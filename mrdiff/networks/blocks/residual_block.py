"""The block of our U-Net."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mrdiff.networks.blocks.convolution import Conv


def zero_conv(inputs: int, outputs: int) -> Conv:
    """A 3x3 convolution that starts by returning zero."""
    conv = Conv(inputs, outputs, 3, padding=1)
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


class ResidualBlock(nn.Module):
    """x + conv(act(film(conv(act(x))))), the time acting through scale and shift (FiLM).

    The second convolution starts at zero, so that a new network is the identity in its blocks.
    """

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.first = Conv(width, width, 3, padding=1)
        self.film = nn.Linear(time_width, 2 * width)
        self.second = zero_conv(width, width)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """``film`` ``[B or 1, 2 width]`` is that of the time embedding."""
        scale, shift = film[:, :, None, None].chunk(2, dim=1)
        hidden = self.first(F.silu(x))
        hidden = torch.addcmul(shift, hidden, 1 + scale)
        return x + self.second(F.silu(hidden))
