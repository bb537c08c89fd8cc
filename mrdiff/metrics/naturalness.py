"""NIQE: how far the statistics of a picture are from those of undistorted photos, no truth needed.

Mittal, Soundararajan and Bovik, "Making a completely blind image quality analyzer" (2013), with the
published model of pristine pictures, ``niqe.npz``; its copyright notice is in ``niqe.txt``.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from mrdiff.metrics.mscn import normalised
from mrdiff.metrics.protocol import Y

BLOCK = 96  # px a side
MIN_SIZE = 2 * BLOCK  # that a covariance of blocks has a meaning
_BORDER = 8  # px, more than a bicubic halving reaches
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # to neighbours, in rows and columns


def niqe(images: Tensor) -> Tensor:
    """NIQE ``[B]``, lower is more natural; of photos it is about 2 to 6.

    In the steps of the authors' MATLAB release: luma as ``rgb2ycbcr`` makes it, rounded, all whole
    blocks of 96 px, each image at its size and at half of it.

    Args:
        images: RGB ``[B, 3, H, W]`` in [0, 1], at least 192 px a side, rounded to 8 bit first.

    Returns:
        One value an image, ``nan`` where fewer than two blocks have any texture.

    Raises:
        ValueError: the images are too small or not RGB.
    """
    if images.ndim == 4 and min(images.shape[-2:]) < MIN_SIZE:
        shape = tuple(images.shape)
        raise ValueError(f"NIQE needs at least {MIN_SIZE} px a side, got {shape}")
    grey = (255 * Y.prepare(images.detach().cpu().double())).round()
    return images.new_tensor([distance(one[None]) for one in grey], dtype=torch.float32)


def distance(grey: Tensor) -> float:
    """NIQE of brightness ``[1, 1, H, W]`` in [0, 255], float64."""
    height, width = (side // BLOCK * BLOCK for side in grey.shape[-2:])
    grey = grey[..., :height, :width]
    scales = ((grey, BLOCK), (_halved(grey), BLOCK // 2))
    features = torch.cat([_features(normalised(g), side) for g, side in scales], dim=1)
    whole = features[~features.isnan().any(dim=1)]
    if len(whole) < 2:
        return float("nan")
    mean, covariance = _model()
    away = features.nanmean(dim=0) - mean
    spread = (torch.cov(whole.mT) + covariance) / 2
    return float((away @ torch.linalg.pinv(spread) @ away).sqrt())


@cache
def _model() -> tuple[Tensor, Tensor]:
    """Mean ``[36]`` and covariance ``[36, 36]`` of the features of pristine pictures."""
    with np.load(Path(__file__).with_name("niqe.npz")) as model:
        return torch.from_numpy(model["mean"]), torch.from_numpy(model["covariance"])


def _halved(grey: Tensor) -> Tensor:
    """As MATLAB's ``imresize`` does it: bicubic, antialiased, mirrored at the border."""
    for dim in (-2, -1):
        first, last = grey.narrow(dim, 0, _BORDER), grey.narrow(dim, -_BORDER, _BORDER)
        grey = torch.cat([first.flip(dim), grey, last.flip(dim)], dim)
    half = functional.interpolate(grey, scale_factor=0.5, mode="bicubic", antialias=True)
    inside = slice(_BORDER // 2, -_BORDER // 2)
    return half[..., inside, inside]


def _features(values: Tensor, side: int) -> Tensor:
    """18 features of each block ``[N, 18]`` of normalised values ``[1, 1, H, W]``."""
    blocks = rearrange(values, "1 1 (n h) (m w) -> (n m) h w", h=side, w=side)
    shape, left, right, _ = _asymmetric_fit(blocks)
    found = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        products = blocks * blocks.roll(shift, dims=(1, 2))
        shape, left, right, mean = _asymmetric_fit(products)
        found += [shape, mean, left, right]
    return torch.stack(found, dim=1)


@cache
def _shapes() -> tuple[Tensor, Tensor]:
    """Shapes of a generalised Gaussian, and E|x|² / E x² under them, which rises."""
    shapes = torch.arange(200, 10001, dtype=torch.float64) / 1000
    one, two, three = (torch.lgamma(k / shapes) for k in (1, 2, 3))
    return shapes, (2 * two - one - three).exp()


def _asymmetric_fit(values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shape, left and right scale, and mean of asymmetric generalised Gaussians, ``[N]`` each.

    By their moments over ``[N, H, W]`` (Lasmar et al., 2009); scales are nan without values on both
    sides of 0.
    """
    values = values.flatten(1)
    sides = (values < 0, values > 0)
    left, right = (((values * s).square().sum(1) / s.sum(1)).sqrt() for s in sides)
    ratio = left / right
    moments = values.abs().mean(1).square() / values.square().mean(1)
    moments = moments * (ratio**3 + 1) * (ratio + 1) / (ratio.square() + 1).square()
    shapes, curve = _shapes()
    nearest = torch.bucketize(moments.nan_to_num(0.0), (curve[1:] + curve[:-1]) / 2)
    shape = shapes[nearest]
    one, two, three = (torch.lgamma(k / shape) for k in (1, 2, 3))
    scale = ((one - three) / 2).exp()
    left, right = left * scale, right * scale
    return shape, left, right, (right - left) * (two - one).exp()
