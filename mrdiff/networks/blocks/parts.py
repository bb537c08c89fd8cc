"""Parts that the official networks share, under the names of their checkpoints."""

from __future__ import annotations

import math
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mrdiff.networks.blocks.convolution import Conv, convolve, pays
from mrdiff.networks.protocol import is_plain


class Sinusoids(nn.Module):
    """Sines and cosines of the official raw time: ``[B]`` -> ``[B, width]``, width even, >= 4.

    Angles reach T radians: float32 times or wider, whatever the type of the weights.
    """

    exponents: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 4 or width % 2:
            raise ValueError(f"the time embedding needs an even width of 4 or more, got {width}")
        half = width // 2
        # Whole numbers, which no conversion of the network rounds.
        self.register_buffer("exponents", torch.arange(half), persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        # From 1 down to 1 / 10000.
        factor = -math.log(10000) / (len(self.exponents) - 1)
        angles = time[:, None] * torch.exp(self.exponents.to(time) * factor)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def raw_time(t: Tensor, steps: int) -> Tensor:
    """The official time t T: whole where t is k / T, which float32 alone misses by a few 1e-6."""
    raw = t * steps
    whole = raw.round()
    return torch.where((raw - whole).abs() < 1e-6 * steps, whole, raw)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each pixel, with a gain and no bias; ``[B, C, H, W]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        # Channels last is a view of images that lie in memory so, and one fused kernel.
        rows = x.permute(0, 2, 3, 1)
        eps = 1e-5 if x.dtype == torch.float32 else 1e-3
        return F.layer_norm(rows, rows.shape[-1:], self.g.flatten(), None, eps).permute(0, 3, 1, 2)


class Prenorm(nn.Module):
    """x + fn(norm(x)), under the official names ``fn.norm`` and ``fn.fn``."""

    def __init__(self, width: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn = nn.ModuleDict({"norm": ChannelNorm(width), "fn": fn})

    def forward(self, x: Tensor, token: Tensor | None = None) -> Tensor:
        out: Tensor = self.fn["fn"](self.fn["norm"](x), token)
        return x + out  # in the memory format of x


def plain_conv(inputs: int, outputs: int, size: int = 3) -> Conv:
    """A convolution that keeps the size and has no bias."""
    return Conv(inputs, outputs, size, padding=size // 2, bias=False)


class ResBlock(nn.Module):
    """silu(conv(silu(film(conv(x))))) + skip(x), the time acting through scale and shift."""

    def __init__(self, inputs: int, outputs: int, time_width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_width, 2 * outputs))
        self.block1 = nn.ModuleDict({"proj": plain_conv(inputs, outputs)})
        self.block2 = nn.ModuleDict({"proj": plain_conv(outputs, outputs)})
        self.res_conv = plain_conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """``film`` ``[B or 1, 2 outputs]`` is ``mlp`` of the time embedding."""
        scale, shift = film[:, :, None, None].chunk(2, dim=1)
        hidden = F.silu(torch.addcmul(shift, self.block1["proj"](x), 1 + scale))
        return F.silu(self.block2["proj"](hidden)) + self.res_conv(x)


class SimpleGate(nn.Module):
    """The product of both halves of the channels."""

    def forward(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, dim=1)
        return one * two


class NAFBlock(nn.Module):
    """NAFNet's block (Chen et al. 2022) with a time as in Refusion.

    A gated depthwise convolution with channel attention, then a gated layer a pixel. Both
    start by adding nothing; the time acts behind their norms through scale and shift.
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


class LinearAttention(nn.Module):
    """Attention whose cost grows with the pixels alone (Katharopoulos et al. 2020), 4 heads of 32.

    The queries are normalised over the channels of a head, the keys over the pixels.
    """

    heads, head_width = 4, 32

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = self.heads * self.head_width
        self.to_qkv = Conv(width, 3 * inner, 1, bias=False)
        self.to_out = nn.Sequential(Conv(inner, width, 1), ChannelNorm(width))

    def forward(self, x: Tensor, token: Tensor | None = None) -> Tensor:
        height, width = x.shape[-2:]
        # The channels of a head stay together: images that lie channels last are never transposed.
        parts = "b (part head c) h w -> part b head (h w) c"
        q, k, v = rearrange(self.to_qkv(x), parts, part=3, head=self.heads)
        values = k.softmax(dim=-2).transpose(-1, -2) @ v  # [B, heads, 32, 32]
        values = values * (self.head_width**-0.5 / (height * width))
        mixed = (q.softmax(dim=-1) @ values).transpose(1, 2).flatten(2)  # [B, H W, heads 32]
        out: Tensor = self.to_out(mixed.unflatten(1, (height, width)).permute(0, 3, 1, 2))
        return out


class Upsample(nn.Sequential):
    """Twice the size by repetition, then a 3x3 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        repeat = nn.Upsample(scale_factor=2, mode="nearest")
        super().__init__(repeat, Conv(inputs, outputs, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        conv = cast(Conv, self[1])
        if pays(x, conv.weight) and is_plain(self):
            weight = transposed_filter(conv.weight)
            return convolve(x, weight, conv.bias, stride=2, padding=1, transposed=True)
        return super().forward(x)


def transposed_filter(weight: Tensor) -> Tensor:
    """``[O, C, 3, 3]`` behind a repetition is ``[C, O, 4, 4]`` transposed: 4/9 of the products."""
    turned = weight.transpose(0, 1).flip(2, 3)
    total = sum(F.pad(turned, (j, 1 - j, i, 1 - i)) for i in (0, 1) for j in (0, 1))
    assert isinstance(total, Tensor)
    return total.contiguous(memory_format=torch.channels_last)


def downsample(inputs: int, outputs: int) -> Conv:
    """Half the size by a 4x4 convolution of stride 2."""
    return Conv(inputs, outputs, 4, stride=2, padding=1)
