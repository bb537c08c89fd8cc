"""What a sampler may change in the predicted clean images, as denoisers around a denoiser."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import DenoiserLike, DenoiserWrapper, Prediction
from mrdiff.diffusion.process import expand_like


class _CorrectedDenoiser(DenoiserWrapper):
    """Changes each x0 ``[B, C, H, W]`` and makes eps agree with it."""

    @abstractmethod
    def _corrected(self, x0: Tensor) -> Tensor:
        """Another x0, never in place: earlier ones may still be in use as predictions."""

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        x0 = self._corrected(self.denoiser(x, t, mu).x0)
        return Prediction(x0, lambda: self.process.noise_in(x, x0, mu, t))


class AveragedDenoiser(_CorrectedDenoiser):
    """Predicts the mean of all x0 that it has predicted so far.

    Without noise (temperature 0) the state at each time is what the degraded image alone leaves to
    expect, so that every call of one run estimates the same image, E[x0 | mu]. Networks err
    differently at different times: the mean of their estimates errs less, and what one call gets
    wrong is not handed on in full to the next. It is for one run: make a new one for the next.
    """

    def __init__(self, denoiser: DenoiserLike) -> None:
        super().__init__(denoiser)
        self._mean: Tensor | None = None
        self._calls = 0

    def _corrected(self, x0: Tensor) -> Tensor:
        self._calls += 1
        self._mean = x0 if self._mean is None else torch.lerp(self._mean, x0, 1 / self._calls)
        return self._mean


class ThresholdedDenoiser(_CorrectedDenoiser):
    """Clips each predicted x0 to [0.5 - s, 0.5 + s].

    s is the given percentile of |x0 - 0.5| over the image, but at least 0.5: no value of [0, 1] is
    ever touched, and outliers beyond the percentile are. Unlike Imagen (Saharia et al. 2022, Sec.
    2.3) the result is not divided by s: that would change a photo's exposure. A percentile of 0
    clips to [0, 1], 0.995 spares half a per cent of outliers' range; ValueError outside [0, 1].
    """

    def __init__(self, denoiser: DenoiserLike, percentile: float) -> None:
        if not 0 <= percentile <= 1:
            raise ValueError(f"threshold must lie in [0, 1], got {percentile}")
        super().__init__(denoiser)
        self.percentile = percentile

    def _corrected(self, x0: Tensor) -> Tensor:
        distance = (x0 - 0.5).abs().flatten(1)
        rank = min(max(round(self.percentile * distance.shape[1]), 1), distance.shape[1])
        # kthvalue, because ``torch.quantile`` refuses more than 16 million values.
        reach = expand_like(distance.kthvalue(rank, dim=1).values.clamp(min=0.5), x0)
        return torch.maximum(torch.minimum(x0, 0.5 + reach), 0.5 - reach)
