"""What a sampler may change in the predicted clean images, as denoisers around a denoiser."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from mrdiff.diffusion.parameterization import DATA, Reading, read_at, readings
from mrdiff.diffusion.path import Time, expand_like
from mrdiff.diffusion.prediction import Output, Prediction
from mrdiff.diffusion.wrappers import DenoiserLike, DenoiserWrapper, prepared
from mrdiff.networks.protocol import Context


class AveragedDenoiser(DenoiserWrapper):
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
        self._read: dict[Time, Reading] = {}

    def prepare(
        self, mu: Tensor | None, times: Sequence[float], context: Context | None = None
    ) -> AveragedDenoiser:
        other = copy.copy(self)
        other.denoiser = prepared(self.denoiser, mu, times, context)
        found = readings(self.process, DATA, 1.0, tuple(times))
        other._read = dict(zip(times, found, strict=True))
        return other

    def __call__(self, x: Tensor, t: Time, mu: Tensor) -> Prediction:
        y0 = self.denoiser(x, t, mu).y0(mu)
        self._calls += 1
        # Not in place: earlier ones may still be in use as predictions.
        self._mean = y0 if self._mean is None else torch.lerp(self._mean, y0, 1 / self._calls)
        read = self._read.get(t) or read_at(self.process, DATA, 1.0, t, x)
        return Output(self._mean, read, x, mu, self.process.centred(mu, t))


class ThresholdedDenoiser(DenoiserWrapper):
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

    def __call__(self, x: Tensor, t: Time, mu: Tensor) -> Prediction:
        x0 = self.denoiser(x, t, mu).x0
        distance = (x0 - 0.5).abs().flatten(1)
        rank = min(max(round(self.percentile * distance.shape[1]), 1), distance.shape[1])
        # kthvalue, because ``torch.quantile`` refuses more than 16 million values.
        reach = expand_like(distance.kthvalue(rank, dim=1).values.clamp(min=0.5), x0)
        clipped = torch.maximum(torch.minimum(x0, 0.5 + reach), 0.5 - reach)
        return Prediction(clipped, lambda: self.process.noise_in(x, clipped, mu, t))
