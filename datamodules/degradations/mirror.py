"""What lies beyond the borders of an image: its mirror image, again and again."""

from __future__ import annotations

import torch
from torch import Tensor


def mirrored(start: int, stop: int, length: int, device: torch.device | None = None) -> Tensor:
    """Indices of ``range(start, stop)`` in ``length`` pixels that are mirrored beyond both ends."""
    period = max(1, 2 * (length - 1))
    index = torch.arange(start, stop, device=device).remainder(period)
    return index.minimum(period - index)
