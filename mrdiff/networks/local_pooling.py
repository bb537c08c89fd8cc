"""Global averages made local, so that a network sees on a large photo what it saw in training.

Channel attention multiplies its input by a function of the average over all of it, which in a photo
or a tile is another than in a training patch. Chu et al., "Improving Image Restoration by
Revisiting Global Information Aggregation" (ECCV 2022), average over a window of the training size.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrdiff.networks.protocol import image_channels

__all__ = ["LocalAverage", "localise"]


class LocalAverage(nn.Module):
    """The average over a window around each pixel, ``[B, C, H, W]`` in and out.

    Near the border it is that of the nearest window that lies within. An input no larger than the
    window has one average, ``[B, C, 1, 1]``.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2:]
        if rows <= self.height and columns <= self.width:
            return x.mean((-2, -1), keepdim=True)
        high, wide = min(rows, self.height), min(columns, self.width)
        # One axis after the other: a window costs its sides, not its area.
        mean = F.avg_pool2d(F.avg_pool2d(x, (high, 1), 1), (1, wide), 1)
        top, left = (high - 1) // 2, (wide - 1) // 2
        return F.pad(mean, (left, wide - 1 - left, top, high - 1 - top), mode="replicate")


def _sizes(
    network: nn.Module, pools: dict[str, nn.Module], size: int
) -> dict[str, tuple[int, int]]:
    """Height and width of each pool's input for an image of ``size`` pixels a side."""
    found: dict[str, tuple[int, int]] = {}

    def note(name: str, _: nn.Module, given: tuple[Tensor]) -> None:
        found[name] = (given[0].shape[-2], given[0].shape[-1])

    handles = [pool.register_forward_pre_hook(partial(note, name)) for name, pool in pools.items()]
    like = next(network.parameters())
    image = like.new_zeros(1, image_channels(network), size, size)
    with torch.no_grad():
        network(image, image, like.new_ones(1))
    for handle in handles:
        handle.remove()
    return found


def localise(network: nn.Module, size: int, *, factor: float = 1.5) -> int:
    """Replace every :class:`torch.nn.AdaptiveAvgPool2d` to 1 of a network, and return their number.

    Args:
        network: changed in place.
        size: side of the training patches in pixels.
        factor: of the window to what a patch gives there; the paper's is 1.5.

    Raises:
        ValueError: there is none, or ``size`` is too small for the network.
    """
    pools: dict[str, nn.Module] = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))
    }
    if not pools:
        raise ValueError(
            "this network has no global average (AdaptiveAvgPool2d to 1) to make local"
        )
    for name, (height, width) in _sizes(network, pools, size).items():
        parent, _, own = name.rpartition(".")
        window = (max(1, round(factor * height)), max(1, round(factor * width)))
        setattr(network.get_submodule(parent), own, LocalAverage(*window))
    return len(pools)
