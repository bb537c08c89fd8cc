"""Convolution: directly where the kernel is small, by FFT where it is large."""

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


def convolve_inside(planes: Tensor, kernel: Tensor) -> Tensor:
    """``planes`` ``[N, H, W]`` convolved with ``kernel`` ``[K, K]`` where it lies within them.

    Returns:
        ``[N, H - K + 1, W - K + 1]`` in the dtype of ``planes``.
    """
    kernel, size = kernel.to(planes.dtype), kernel.shape[-1]
    if size <= _DIRECT[planes.dtype]:
        return filter2d(planes[None], kernel[None], padding="valid", behaviour="conv")[0]
    height, width = planes.shape[-2:]
    # What wraps round stays within the first K - 1 rows and columns.
    whole = convolve_torus(planes, kernel, fast_size(height, width))
    return whole[:, size - 1 : height, size - 1 : width]


def convolve(image: Tensor, kernel: Tensor) -> Tensor:
    """``image`` ``[C, H, W]`` convolved with ``kernel`` ``[K, K]``, K odd; borders are mirrored."""
    height, width = image.shape[-2:]
    margin = kernel.shape[-1] // 2
    rows = mirrored(-margin, height + margin, height)
    columns = mirrored(-margin, width + margin, width)
    return convolve_inside(image[:, rows][:, :, columns], kernel)
