"""The running mean of a sampler's predictions, as a denoiser around a denoiser."""

from __future__ import annotations

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import DenoiserLike, Prediction
from mrdiff.diffusion.process import MRProcess


class AveragedDenoiser:
    """Predicts the mean of all x0 that it has predicted so far, and the eps that agrees with it.

    Without noise (temperature 0) the state at each time is what the degraded image alone leaves to
    expect, so that every call of one run estimates the same image, E[x0 | mu]. Networks err
    differently at different times: the mean of their estimates errs less, and what one call gets
    wrong is not handed on in full to the next. It is for one run: make a new one for the next.

    Args:
        denoiser: ``(x, t, mu) -> Prediction`` with ``.process``.
    """

    def __init__(self, denoiser: DenoiserLike) -> None:
        self.denoiser = denoiser
        self._mean: Tensor | None = None
        self._calls = 0

    @property
    def process(self) -> MRProcess:
        """The process of the denoiser."""
        return self.denoiser.process

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        """Predict from ``x`` ``[B, C, H, W]`` at ``t`` (0-dim or ``[B]``) in (0, 1]."""
        x0 = self.denoiser(x, t, mu).x0
        self._calls += 1
        # Never in place: earlier means may still be in use as predictions.
        mean = x0 if self._mean is None else torch.lerp(self._mean, x0, 1 / self._calls)
        self._mean = mean
        return Prediction(mean, lambda: self.process.noise_in(x, mean, mu, t))
