"""Parts that the official networks share, under the names of their checkpoints."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Sinusoids(nn.Module):
    """Sines and cosines of the official raw time: ``[B]`` -> ``[B, width]``.

    Args:
        width: even and at least 4; half of it are frequencies from 1 down to 1/10000.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 4 or width % 2:
            raise ValueError(f"the time embedding needs an even width of 4 or more, got {width}")
        half = width // 2
        frequencies = torch.exp(torch.arange(half) * (-math.log(10000) / (half - 1)))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        angles = time[:, None] * self.frequencies
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

    class _Normed(nn.Module):
        def __init__(self, width: int, fn: nn.Module) -> None:
            super().__init__()
            self.norm = ChannelNorm(width)
            self.fn = fn

        def forward(self, x: Tensor, token: Tensor | None) -> Tensor:
            out: Tensor = self.fn(self.norm(x), token)
            return out

    def __init__(self, width: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn = Prenorm._Normed(width, fn)

    def forward(self, x: Tensor, token: Tensor | None = None) -> Tensor:
        out: Tensor = self.fn(x, token)
        return out + x


def plain_conv(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    """A convolution that keeps the size and has no bias."""
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)


class _Projection(nn.Module):
    """A convolution under the official name ``proj``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = plain_conv(inputs, outputs)


class ResBlock(nn.Module):
    """silu(conv(silu(film(conv(x))))) + skip(x), the time acting through scale and shift.

    Args:
        inputs: channels of x.
        outputs: channels of the result; the skip is a 1x1 convolution where they differ.
        time_width: width of the time embedding.
    """

    def __init__(self, inputs: int, outputs: int, time_width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_width, 2 * outputs))
        self.block1 = _Projection(inputs, outputs)
        self.block2 = _Projection(outputs, outputs)
        self.res_conv = plain_conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """``film`` ``[B or 1, 2 outputs]`` is ``mlp`` of the time embedding."""
        scale, shift = film[:, :, None, None].chunk(2, dim=1)
        hidden = F.silu(torch.addcmul(shift, self.block1.proj(x), 1 + scale))
        return F.silu(self.block2.proj(hidden)) + self.res_conv(x)


class LinearAttention(nn.Module):
    """Attention whose cost grows with the pixels alone (Katharopoulos et al. 2020), 4 heads of 32.

    The queries are normalised over the channels of a head, the keys over the pixels.
    """

    heads, head_width = 4, 32

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = self.heads * self.head_width
        self.to_qkv = nn.Conv2d(width, 3 * inner, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(inner, width, 1), ChannelNorm(width))

    def forward(self, x: Tensor, token: Tensor | None = None) -> Tensor:
        batch, _, height, width = x.shape
        shape = (batch, 3, self.heads, self.head_width, height * width)
        q, k, v = self.to_qkv(x).reshape(shape).unbind(1)
        q = q.softmax(dim=-2)
        values = k.softmax(dim=-1) @ v.transpose(-1, -2)  # [B, heads, 32, 32]
        values = values * (self.head_width**-0.5 / (height * width))
        out: Tensor = self.to_out((values.transpose(-1, -2) @ q).reshape(batch, -1, height, width))
        return out


class Upsample(nn.Sequential):
    """Twice the size by repetition, then a 3x3 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        repeat = nn.Upsample(scale_factor=2, mode="nearest")
        super().__init__(repeat, nn.Conv2d(inputs, outputs, 3, padding=1))


def downsample(inputs: int, outputs: int) -> nn.Conv2d:
    """Half the size by a 4x4 convolution of stride 2."""
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)


def padding(image: Tensor, multiple: int) -> tuple[int, int, int, int]:
    """What :func:`torch.nn.functional.pad` needs to make height and width multiples."""
    height, width = image.shape[-2:]
    return 0, -width % multiple, 0, -height % multiple
