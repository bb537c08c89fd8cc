"""Convolution: small kernels directly, large ones by FFT, a torus where it wraps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kornia.filters import fft_conv
from torch import Tensor

from datamodules.degradations.convolution import (
    convolve,
    convolve_inside,
    convolve_torus,
    fast_size,
)
from datamodules.degradations.mirror import mirrored
from datamodules.degradations.noise import _REACH, coloured

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _kernel(size: int) -> Tensor:
    kernel = _random(size, size, seed=size)
    return kernel / kernel.sum()


def _slow(image: Tensor, kernel: Tensor) -> Tensor:
    """One FFT for every size, in float64, of the image mirrored beyond its borders."""
    height, width = image.shape[-2:]
    margin = kernel.shape[-1] // 2
    rows = mirrored(-margin, height + margin, height)
    columns = mirrored(-margin, width + margin, width)
    wide = image.double()[:, rows][:, :, columns]
    shape = [-(-length // 16) * 16 for length in wide.shape[-2:]]
    spectrum = torch.fft.rfft2(wide, s=shape) * torch.fft.rfft2(kernel.double(), s=shape)
    blurred = torch.fft.irfft2(spectrum, s=shape)
    inside = slice(2 * margin, 2 * margin + height), slice(2 * margin, 2 * margin + width)
    return blurred[:, inside[0], inside[1]]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [1, 3, 5, 7, 9, 11, 31])
def test_every_size_is_the_same_convolution(size: int, dtype: torch.dtype) -> None:
    for shape in ((3, 40, 57), (1, 9, 17)):
        image, kernel = _random(*shape).to(dtype), _kernel(size)
        ours = convolve(image[None], kernel[None])[0]
        assert ours.dtype == dtype
        torch.testing.assert_close(
            ours.double(), _slow(image, kernel), atol=TOLERANCE[dtype], rtol=0
        )


@pytest.mark.parametrize("size", [5, 23])
def test_inside_nothing_lies_beyond_the_borders(size: int) -> None:
    images, kernels = _random(2, 3, 40, 33), _random(2, size, size)
    ours = convolve_inside(images, kernels)
    for image, kernel, inside in zip(images, kernels, ours, strict=True):
        expected = fft_conv(image[None], kernel[None], padding="valid", behaviour="conv")[0]
        torch.testing.assert_close(inside, expected, atol=1e-11, rtol=0)


def test_what_leaves_a_torus_comes_in_on_its_other_side() -> None:
    planes, kernels = _random(2, 12, 15), _random(2, 5, 5, seed=1)
    expected = torch.zeros_like(planes)
    for y, x in np.ndindex(5, 5):
        moved = planes.roll((y, x), (1, 2))
        expected += kernels[:, y, x, None, None] * moved
    ours = convolve_torus(planes, kernels, (12, 15))
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)


def test_fast_sizes_are_no_smaller_and_have_small_factors() -> None:
    assert fast_size(97, 128) == (100, 128)


def test_grain_is_the_sum_of_shifted_planes() -> None:
    # Of two images with a correlation and a smoothness of their own.
    white = _random(2, 4, 20 + 2 * _REACH, 31 + 2 * _REACH).float() - 0.5
    for grain in (0.0, 0.4, 1.5):
        both = coloured(white, torch.tensor([grain, 0.7]), torch.tensor([0.3, 0.8]))
        for ours, image, own, shared in zip(both, white, (grain, 0.7), (0.3, 0.8), strict=True):
            planes = (1 - shared) ** 0.5 * image[:3] + shared**0.5 * image[3:]
            taps = np.exp(-0.5 * (np.arange(-_REACH, _REACH + 1) / max(own, 1e-3)) ** 2)
            taps = (taps / np.sqrt((taps**2).sum())).tolist()
            planes = sum(tap * planes[:, k : k + 20] for k, tap in enumerate(taps))
            slow = sum(tap * planes[:, :, k : k + 31] for k, tap in enumerate(taps))
            torch.testing.assert_close(ours, slow, atol=1e-5, rtol=0)
