"""Numbers as colours from black to bright yellow."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor

__all__ = ["heat_map"]


def heat_map(values: Tensor, *, brightest: float) -> Tensor:
    """``[H, W]`` as RGB ``[3, H, W]``: 0 is black, ``brightest`` and more bright yellow."""
    colours = np.asarray(colormaps["inferno"]((values / brightest).clamp(0, 1).numpy()))[..., :3]
    return torch.from_numpy(colours).permute(2, 0, 1).float()
