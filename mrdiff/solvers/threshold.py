"""Thresholding of the predicted clean image, as a denoiser around a denoiser."""

from __future__ import annotations

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import DenoiserLike, Prediction
from mrdiff.diffusion.process import MRProcess, expand_like


def _reach(x0: Tensor, percentile: float) -> Tensor:
    """Half the width of the range that x0 is clipped to, ``[B]``; at least 0.5.

    kthvalue, because ``torch.quantile`` refuses more than 16 million values.
    """
    distance = (x0 - 0.5).abs().flatten(1)
    rank = min(max(round(percentile * distance.shape[1]), 1), distance.shape[1])
    return distance.kthvalue(rank, dim=1).values.clamp(min=0.5)


class ThresholdedDenoiser:
    """Clips each predicted x0 to [0.5 - s, 0.5 + s] and makes eps agree with it.

    s is the given percentile of \\|x0 - 0.5\\| over the image, but at least 0.5: no value of [0, 1]
    is ever touched, and outliers beyond the percentile are. Unlike Imagen (Saharia et al. 2022,
    Sec. 2.3) the result is not divided by s: that would change a photo's exposure.

    Args:
        denoiser: ``(x, t, mu) -> Prediction`` with ``.process``.
        percentile: in [0, 1]; 0 clips to [0, 1], 0.995 spares half a per cent of outliers' range.

    Raises:
        ValueError: the percentile is outside [0, 1].
    """

    def __init__(self, denoiser: DenoiserLike, percentile: float) -> None:
        if not 0 <= percentile <= 1:
            raise ValueError(f"threshold must lie in [0, 1], got {percentile}")
        self.denoiser = denoiser
        self.percentile = percentile

    @property
    def process(self) -> MRProcess:
        """The process of the denoiser."""
        return self.denoiser.process

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        """Predict from ``x`` ``[B, C, H, W]`` at ``t`` (0-dim or ``[B]``) in (0, 1]."""
        x0 = self.denoiser(x, t, mu).x0
        reach = expand_like(_reach(x0, self.percentile), x0)
        x0 = torch.maximum(torch.minimum(x0, 0.5 + reach), 0.5 - reach)
        return Prediction(x0, lambda: self.process.noise_in(x, x0, mu, t))
