"""PIQE: which share of a picture's lively blocks is distorted, no truth needed.

Venkatanath et al., "Blind image quality evaluation using perception based features" (2015).
"""

import torch
from einops import rearrange
from torch import Tensor

from mrdiff.metrics.mscn import normalised
from mrdiff.metrics.protocol import RGB
from mrdiff.photo.channels import LUMA

BLOCK = 16  # px a side
_SEGMENT = 6  # px of a block's edge
_ACTIVE = 0.1  # variance of a lively block
_FLAT = 0.1  # deviation below which a segment of an edge is an artifact


def piqe(images: Tensor) -> Tensor:
    """PIQE ``[B]``, about 0 to 100, lower is better; 100 without any lively block.

    In the steps of MATLAB's ``piqe``.

    Args:
        images: RGB ``[B, 3, H, W]`` in [0, 1], at least 16 px a side, rounded to 8 bit first.

    Raises:
        ValueError: the images are too small or not RGB.
    """
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < BLOCK:
        shape = tuple(images.shape)
        raise ValueError(f"PIQE needs [B, 3, H, W] of at least {BLOCK} px a side, got {shape}")
    rgb = RGB.prepare(images.detach().cpu().double())
    weights = torch.tensor(LUMA, dtype=rgb.dtype).view(1, 3, 1, 1)
    grey = (255 * (rgb * weights).sum(dim=1, keepdim=True)).round()
    brightest = grey.amax(dim=(2, 3), keepdim=True).clamp(min=1)
    values = normalised((255 * _whole_blocks(grey) / brightest).round())
    blocks = rearrange(values, "b 1 (n h) (m w) -> b (n m) h w", h=BLOCK, w=BLOCK)
    variance = blocks.flatten(2).var(dim=-1)
    active = variance > _ACTIVE
    scores = _has_artifact(blocks) * (1 - variance) + _is_noisy(blocks, variance) * variance
    count = active.sum(dim=1)
    return (100 * ((active * scores).sum(dim=1) + 1) / (count + 1)).to(images.device).float()


def _whole_blocks(grey: Tensor) -> Tensor:
    """Continued to the right and below as in a mirror."""
    for dim in (-2, -1):
        missing = -grey.shape[dim] % BLOCK
        mirrored = grey.narrow(dim, grey.shape[dim] - missing, missing).flip(dim)
        grey = torch.cat([grey, mirrored], dim)
    return grey


def _has_artifact(blocks: Tensor) -> Tensor:
    """Whether any segment of a block's four edges is flat, ``[B, N]`` of ``[B, N, 16, 16]``."""
    edges = (blocks[..., 0, :], blocks[..., -1, :], blocks[..., :, 0], blocks[..., :, -1])
    segments = torch.stack(edges, dim=2).unfold(-1, _SEGMENT, 1)
    return (segments.std(dim=-1) < _FLAT).flatten(2).any(dim=2)


def _is_noisy(blocks: Tensor, variance: Tensor) -> Tensor:
    """Whether a block varies as much at its centre as around it.

    The surround lacks the first column of the centre and the one right of the centre: MATLAB's
    code takes out one column, and counts the second in what is left.
    """
    around = [i for i in range(BLOCK) if i not in (BLOCK // 2 - 1, BLOCK // 2 + 1)]
    centre = blocks[..., BLOCK // 2 - 1 : BLOCK // 2 + 1].flatten(2).std(dim=-1)
    ratio = (centre / blocks[..., around].flatten(2).std(dim=-1)).nan_to_num()
    deviation = variance.sqrt()
    return deviation > 2 * (deviation - ratio).abs() / torch.maximum(deviation, ratio)
