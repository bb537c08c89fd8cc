"""Convolution with a kernel an image: directly where it is small, by FFT where it is large."""

from __future__ import annotations

import torch
from kornia.filters import filter2d
from scipy.fft import next_fast_len
from torch import Tensor

from datamodules.degradations.mirror import mirrored

_DIRECT = {torch.float32: 9, torch.float64: 5}  # the largest K that is faster directly, on one core


def fast_size(height: int, width: int) -> tuple[int, int]:
    """The next larger lengths that the FFT is fast at."""
    return next_fast_len(height, real=True), next_fast_len(width, real=True)


def convolve_torus(planes: Tensor, kernels: Tensor, size: tuple[int, int]) -> Tensor:
    """``planes`` ``[..., H, W]`` and ``kernels`` ``[..., K, K]`` convolved on a torus of ``size``.

    Both have their first pixel at the torus's; the result is ``[..., *size]``.
    """
    spectrum = torch.fft.rfft2(planes, s=size) * torch.fft.rfft2(kernels, s=size)
    product: Tensor = torch.fft.irfft2(spectrum, s=size)
    return product


def convolve_inside(images: Tensor, kernels: Tensor) -> Tensor:
    """``images`` ``[B, C, H, W]`` convolved with ``kernels`` ``[B, K, K]`` where these lie within.

    Returns:
        ``[B, C, H - K + 1, W - K + 1]`` in the dtype of ``images``.
    """
    kernels, size = kernels.to(images.dtype), kernels.shape[-1]
    if images.device.type == "cpu" and size <= _DIRECT[images.dtype]:  # a GPU's may be TF32
        return filter2d(images, kernels, padding="valid", behaviour="conv")
    height, width = images.shape[-2:]
    # What wraps round stays within the first K - 1 rows and columns.
    whole = convolve_torus(images, kernels[:, None], fast_size(height, width))
    return whole[..., size - 1 : height, size - 1 : width]


def convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """``images`` ``[B, C, H, W]``, mirrored beyond, convolved with ``[B, K, K]``, K odd."""
    height, width = images.shape[-2:]
    margin = kernels.shape[-1] // 2
    rows = mirrored(-margin, height + margin, height, device=images.device)
    columns = mirrored(-margin, width + margin, width, device=images.device)
    return convolve_inside(images[..., rows, :][..., columns], kernels)
