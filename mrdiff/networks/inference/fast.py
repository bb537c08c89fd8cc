"""The networks' blocks for restoring on the CPU: the same numbers in fewer passes over memory.

Each class does what its parent does, without gradients: in place, a group of rows at a time so that
what lies between layers stays in the cache, with steps of algebra that matrices do beforehand.
Images lie in memory channels last.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrdiff.networks.blocks.parts import (
    ChannelNorm,
    LinearAttention,
    NAFBlock,
    Prenorm,
    ResBlock,
    Upsample,
    transposed_filter,
)
from mrdiff.networks.blocks.residual_block import ResidualBlock
from mrdiff.networks.inference.derived import derived, forget_changed
from mrdiff.networks.inference.winograd import pays, winograd_conv

__all__ = ["fast_copy", "inference_copy"]

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_TOGETHER, _LEAST = 1 << 21, 2048  # numbers of a group of rows, at least so many rows


def _rows(image: Tensor) -> Tensor:
    """``[B, C, H, W]`` as ``[B, H W, C]``: a view of what lies channels last."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def _groups(rows: Tensor, width: int) -> Iterator[slice]:
    """Slices of ``[N, C]`` such that ``width`` numbers of each row stay in the cache."""
    step = max(_LEAST, _TOGETHER // width)
    for start in range(0, len(rows), step):
        yield slice(start, start + step)


def _linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``[N, C]`` by ``[O, C]``: by oneDNN, which is sooner than linear's own product."""
    if _ONEDNN:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        return out
    return F.linear(rows, weight, bias)


def _matrix(conv: nn.Conv2d) -> Tensor:
    return conv.weight.flatten(1)


def _norm(rows: Tensor, gain: Tensor, shift: Tensor | None = None) -> Tensor:
    """A :class:`ChannelNorm` of ``[N, C]``, its gain and a shift ``[C]`` given."""
    return F.layer_norm(rows, rows.shape[1:], gain, shift, 1e-5)


def _conv(block: nn.ModuleDict, x: Tensor) -> Tensor:
    """A 3x3 convolution that keeps the size and has no bias."""
    conv = cast(nn.Conv2d, block["proj"])
    out: Tensor = winograd_conv(x, conv.weight) if pays(conv.weight) else conv(x)
    return out


def _film(hidden: Tensor, film: Tensor) -> Tensor:
    """(1 + scale) hidden + shift, then SiLU, in place."""
    scale, shift = film[:, :, None, None].chunk(2, dim=1)
    return F.silu(hidden.mul_(1 + scale).add_(shift), inplace=True)


class FastResBlock(ResBlock):
    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        hidden = _film(_conv(self.block1, x), film)
        out = F.silu(_conv(self.block2, hidden), inplace=True)
        if not isinstance(self.res_conv, nn.Conv2d):
            return out.add_(x)
        for total, given in zip(_rows(out), _rows(x), strict=True):
            total.add_(_linear(given, _matrix(self.res_conv)))
        return out


class FastResidualBlock(ResidualBlock):
    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        hidden = self.first(F.silu(x))
        return self.second(_film(hidden, film)).add_(x)


class FastUpsample(Upsample):
    """Repetition and convolution are one transposed convolution."""

    def forward(self, x: Tensor) -> Tensor:
        conv = cast(nn.Conv2d, self[1])
        weight = derived(conv.weight, "transposed", transposed_filter)
        return F.conv_transpose2d(x, weight, conv.bias, stride=2, padding=1)


class FastPrenorm(Prenorm):
    """Norm, linear attention and the sum with its input in two passes over the pixels.

    The sums, the output layer and the scale are one matrix behind the queries.
    """

    def forward(self, x: Tensor, token: Tensor | None = None) -> Tensor:
        attention = self.fn["fn"]
        if not isinstance(attention, LinearAttention):
            return super().forward(x, token)
        out = torch.empty_like(x, memory_format=torch.channels_last)
        for given, made in zip(_rows(x), _rows(out), strict=True):
            self._attend(given, made, attention)
        return out

    def _attend(self, x: Tensor, out: Tensor, attention: LinearAttention) -> None:
        gain = cast(ChannelNorm, self.fn["norm"]).g.flatten()
        query, key, value = _matrix(attention.to_qkv).chunk(3)
        sums = _Sums(attention, x)
        for part in _groups(x, 4 * len(query)):
            normed = _norm(x[part], gain)
            sums.add(_linear(normed, key), _linear(normed, value))
        scale = attention.head_width**-0.5 / len(x)
        projection = cast(nn.Conv2d, attention.to_out[0])
        last_gain = cast(ChannelNorm, attention.to_out[1]).g.flatten()
        heads = _matrix(projection).t().unflatten(0, (attention.heads, -1))
        last = (sums.normalised() * scale @ heads).flatten(0, 1).t().contiguous()
        for part in _groups(x, 4 * len(query)):
            q = _linear(_norm(x[part], gain), query)
            q = q.unflatten(1, (attention.heads, -1)).softmax(-1).flatten(1)
            q = _linear(q, last, projection.bias)
            torch.add(_norm(q, last_gain), x[part], out=out[part])


class _Sums:
    """Sums over groups of pixels of values weighted by the softmax of the keys.

    A group with larger keys scales down what was summed before.
    """

    def __init__(self, attention: LinearAttention, like: Tensor) -> None:
        heads, width = attention.heads, attention.head_width
        self.shape = (-1, heads, width)
        self.peak = like.new_full((heads * width,), -torch.inf)
        self.total = like.new_zeros(heads * width)
        self.sums = like.new_zeros(heads, width, width)

    def add(self, keys: Tensor, values: Tensor) -> None:
        """A group of pixels, both ``[N, heads width]``; the keys are overwritten."""
        peak = torch.maximum(self.peak, keys.amax(0))
        shrink = torch.exp(self.peak - peak)
        weights = keys.sub_(peak).exp_()
        self.peak, self.total = peak, self.total * shrink + weights.sum(0)
        k, v = (t.view(self.shape).transpose(0, 1) for t in (weights, values))
        self.sums = self.sums * shrink.view(*self.sums.shape[:2], 1) + k.mT @ v

    def normalised(self) -> Tensor:
        return self.sums / self.total.view(*self.sums.shape[:2], 1)


class FastNAFBlock(NAFBlock):
    """The time is in the norms' weights; attention, beta and gamma are in the layers' matrices."""

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        gated = torch.empty_like(x, memory_format=torch.channels_last)
        for i in range(len(x)):
            self._first(x[i : i + 1], gated[i : i + 1], film[i % len(film)])
        factor = self.sca(gated)
        out = torch.empty_like(gated)
        for i in range(len(x)):
            if factor.shape[-2:] != (1, 1):  # an average of each place: not in a matrix
                gated[i] *= factor[i]
                attention = torch.ones_like(factor[i, :, 0, 0])
            else:
                attention = factor[i, :, 0, 0]
            pixels, inner, made = _rows(x)[i], _rows(gated)[i], _rows(out)[i]
            self._second(pixels, inner, made, attention, film[i % len(film)])
        return out

    def _first(self, x: Tensor, out: Tensor, film: Tensor) -> None:
        shift, scale, _, _ = film.chunk(4)
        gain = (1 + scale) * self.norm1.g.flatten()
        rows = _rows(x)[0]
        hidden = x.new_empty(1, *x.shape[-2:], self.conv1.out_channels)
        flat = hidden.view(len(rows), -1)
        for part in _groups(rows, 3 * rows.shape[1]):
            normed = _norm(rows[part], gain, shift)
            flat[part] = _linear(normed, _matrix(self.conv1), self.conv1.bias)
        one, two = self.conv2(hidden.permute(0, 3, 1, 2)).chunk(2, dim=1)
        torch.mul(one, two, out=out)

    def _second(
        self, x: Tensor, gated: Tensor, out: Tensor, attention: Tensor, film: Tensor
    ) -> None:
        _, _, shift, scale = film.chunk(4)
        gain = (1 + scale) * self.norm2.g.flatten()
        beta, gamma = self.beta.flatten(), self.gamma.flatten()
        third = beta[:, None] * _matrix(self.conv3) * attention
        fifth = gamma[:, None] * _matrix(self.conv5)
        biases = self.conv3.bias * beta, self.conv5.bias * gamma  # type: ignore[operator]
        for part in _groups(gated, 6 * gated.shape[1]):
            middle = _linear(gated[part], third, biases[0]).add_(x[part])
            normed = _norm(middle, gain, shift)
            hidden = _linear(normed, _matrix(self.conv4), self.conv4.bias)
            one, two = hidden.chunk(2, dim=1)
            last = _linear(one * two, fifth, biases[1])
            torch.add(last, middle, out=out[part])


_FAST = {
    NAFBlock: FastNAFBlock,
    Prenorm: FastPrenorm,
    ResBlock: FastResBlock,
    ResidualBlock: FastResidualBlock,
    Upsample: FastUpsample,
}


def fast_copy(network: nn.Module) -> nn.Module:
    """A network of the same parameters, not copies of them, whose blocks are the fast ones."""
    fast = copy.copy(network)
    fast._modules = {
        name: None if child is None else fast_copy(child)
        for name, child in network._modules.items()
    }
    fast.__class__ = _FAST.get(type(network), type(network))
    return fast


def inference_copy(network: nn.Module) -> nn.Module:
    """For one run: with the fast blocks if it computes in float32 on the CPU, else itself."""
    weight = next(network.parameters())
    narrow = weight.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
    if weight.device.type != "cpu" or narrow:
        return network
    forget_changed(network)
    return fast_copy(network)
