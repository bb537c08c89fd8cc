"""Convolutions that also train quickly on CPUs of AVX2 with images that lie channels last."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Conv", "convolve", "pays"]

# oneDNN computes the gradient of a filter there up to 8 times sooner of images that lie channel
# after channel; copies of large ones are repaid. With AVX512 it has kernels of both.
_HERE = torch.backends.cpu.get_cpu_capability() == "AVX2"
_LARGE, _WIDE = 1 << 17, 1 << 20  # numbers of an image, of a filter


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how, ctx.bias = how, None if bias is None else [len(bias)]
        return torch.ops.aten.convolution(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight) = gradients, ctx.saved_tensors
        backward = torch.ops.aten.convolution_backward
        needs_x, needs_weight, needs_bias, *rest = ctx.needs_input_grad
        of_x = of_weight = of_bias = None
        if needs_x:
            of_x = backward(grad, x, weight, None, *ctx.how, [True, False, False])[0]
        if needs_weight or needs_bias:  # oneDNN computes a bias's gradient only beside the filter's
            given = grad.contiguous(), x.contiguous(), weight.new_empty(weight.shape)
            mask = [False, True, needs_bias]
            _, of_weight, of_bias = backward(*given, ctx.bias, *ctx.how, mask)
        return of_x, of_weight, of_bias, *(None for _ in rest)


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether :func:`convolve` trains sooner than PyTorch's own."""
    if torch.compiler.is_compiling() or not (_HERE and x.device.type == "cpu"):
        return False
    floats = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    trained = torch.is_grad_enabled() and weight.requires_grad
    large = x.numel() >= _LARGE * len(x) or weight.numel() >= _WIDE
    return floats and trained and large and not (x.is_contiguous() and weight.is_contiguous())


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int,
    padding: int,
    transposed: bool = False,
) -> Tensor:
    """PyTorch's ``conv2d`` or ``conv_transpose2d``, sooner in training where it :func:`pays`."""
    how = [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1
    out: Tensor = _Convolution.apply(x, weight, bias, *how)
    return out


class Conv(nn.Conv2d):
    """``nn.Conv2d``, by :func:`convolve` where that pays; without dilation, with zeros around."""

    def forward(self, x: Tensor) -> Tensor:
        if self.groups > 1 or not pays(x, self.weight):
            return super().forward(x)
        if self.kernel_size == self.stride == (1, 1):  # PyTorch's, on one core, copies images
            rows = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
            return rows.permute(0, 3, 1, 2)
        stride, padding = self.stride[0], int(self.padding[0])
        return convolve(x, self.weight, self.bias, stride=stride, padding=padding)
