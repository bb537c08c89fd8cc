"""What NIQE and PIQE look at: brightness less its local mean, over its local deviation."""

import torch
from torch import Tensor
from torch.nn import functional

_SIDE, _SIGMA = 7, 7 / 6  # px; as BRISQUE (Mittal et al., 2012) has them


def normalised(grey: Tensor) -> Tensor:
    """Mean-subtracted contrast-normalised values of ``[B, 1, H, W]`` in [0, 255], float64.

    The window is Gaussian, the border repeated outwards.
    """
    offset = torch.arange(_SIDE, dtype=grey.dtype, device=grey.device) - _SIDE // 2
    line = torch.exp(-offset.square() / (2 * _SIGMA**2))
    line = line / line.sum()

    def blurred(values: Tensor) -> Tensor:
        padded = functional.pad(values, [_SIDE // 2] * 4, mode="replicate")
        rows = functional.conv2d(padded, line.view(1, 1, 1, -1))
        return functional.conv2d(rows, line.view(1, 1, -1, 1))

    mean = blurred(grey)
    variance = (blurred(grey.square()) - mean.square()).abs()  # rounding may make it negative
    deviation = grey - mean
    # What is left of rounding in flat parts has a sign, which NIQE looks at; one grey level in the
    # corner of the window makes 1e-4.
    deviation = torch.where(deviation.abs() < 1e-6, 0.0, deviation)
    return deviation / (variance.sqrt() + 1)
