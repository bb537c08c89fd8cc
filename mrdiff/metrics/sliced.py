"""A distance between the patch distributions of two sets of images."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import unfold

PATCH = 7  # px a side


def sliced_wasserstein(
    restored: Tensor,
    target: Tensor,
    *,
    patch: int = PATCH,
    stride: int = 3,
    projections: int = 64,
    seed: int = 0,
) -> float:
    """Sliced 2-Wasserstein distance between the patches of two sets of images (Rabin et al. 2011).

    It asks whether the restored images look like the true ones as a crowd, whatever stands where:
    a blurred set is far away although its PSNR is high, a sharp one with shifted details is near.
    In grey levels over 1: the root mean square, over random unit directions in patch space, of the
    distance between the sorted projections.

    Args:
        restored: ``[B, C, H, W]`` in [0, 1].
        target: the same shape.
        patch: side of the patches in px.
        stride: between patches, in px.
        projections: number of directions.
        seed: of the directions.

    Raises:
        ValueError: the shapes differ or the images are smaller than a patch.
    """
    if restored.shape != target.shape or min(target.shape[-2:]) < patch:
        shapes = f"{tuple(restored.shape)} and {tuple(target.shape)}"
        raise ValueError(f"two sets of one shape, at least {patch} px a side, got {shapes}")
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(target.shape[1] * patch**2, projections, generator=generator)
    directions = (directions / directions.norm(dim=0)).to(target)
    patches = (unfold(images, patch, stride=stride) for images in (restored.to(target), target))
    ours, theirs = (
        (rearrange(rows, "b pixels n -> (b n) pixels") @ directions).sort(dim=0).values
        for rows in patches
    )
    return float((ours - theirs).square().mean().sqrt())
