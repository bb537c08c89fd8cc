"""Residual coordinates y = x - mu, in which every solver works.

MR diffusion is a variance-preserving diffusion of the residual: y_t = alpha_t y0 + sigma_t eps.
mu is subtracted once at the start and added once at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import DenoiserLike, Prediction, prepared
from mrdiff.diffusion.process import MRProcess
from mrdiff.solvers.noise import Noise, draw

StepCallback = Callable[[int, float, Tensor, Prediction], None]


class Residual(NamedTuple):
    """Predicted clean residual y0 = x0 - mu and noise eps, both ``[B, C, H, W]``."""

    y0: Tensor
    eps: Tensor


class ImageDenoiser:
    """A denoiser bound to its degraded image: ``(x, t) -> Prediction``; counts its calls.

    Args:
        denoiser: predicts from (x, t, mu) and has ``.process``.
        mu: degraded image ``[B, C, H, W]`` in [0, 1].
        callback: called as ``(step, t, x, prediction)`` after each network call.
    """

    def __init__(
        self, denoiser: DenoiserLike, mu: Tensor, callback: StepCallback | None = None
    ) -> None:
        self._denoiser = denoiser
        self._callback = callback
        self._calls = 0
        self.mu = mu

    @property
    def process(self) -> MRProcess:
        return self._denoiser.process

    def __call__(self, x: Tensor, t: float) -> Prediction:
        time = torch.tensor(t, dtype=x.dtype, device=x.device)
        prediction = self._denoiser(x, time, self.mu)
        if self._callback is not None:
            self._callback(self._calls, t, x, prediction)
        self._calls += 1
        return prediction


class ResidualDenoiser:
    """The same in residual coordinates: ``(y, t) -> Residual``."""

    def __init__(
        self, denoiser: DenoiserLike, mu: Tensor, callback: StepCallback | None = None
    ) -> None:
        self._predict = ImageDenoiser(denoiser, mu, callback)

    @property
    def process(self) -> MRProcess:
        return self._predict.process

    def __call__(self, y: Tensor, t: float) -> Residual:
        mu = self._predict.mu
        prediction = self._predict(mu + y, t)
        return Residual(prediction.x0 - mu, prediction.eps)


class Draw:
    """The noise of one sampling run: ``draw(step)`` is N(0, temperature²) of the state's shape."""

    def __init__(self, noise: Noise, like: Tensor, temperature: float = 1.0) -> None:
        self._noise = noise
        self._like = like
        self._temperature = temperature

    def __call__(self, step: int) -> Tensor:
        drawn = draw(self._noise, step, self._like)
        return drawn if self._temperature == 1 else self._temperature * drawn


ResidualSolver = Callable[[ResidualDenoiser, Tensor, Tensor, Draw], Tensor]


def integrate(
    solver: ResidualSolver,
    denoiser: DenoiserLike,
    mu: Tensor,
    times: Tensor,
    *,
    noise: Noise,
    callback: StepCallback | None,
    temperature: float = 1.0,
) -> Tensor:
    """Run a residual solver from the prior to the clean image, in float32 or wider.

    Args:
        solver: ``(denoiser, y, times, noise) -> y`` at the last time.
        denoiser: predicts from (x, t, mu).
        mu: degraded image ``[B, C, H, W]`` in [0, 1].
        times: decreasing grid, float64.
        noise: see :func:`mrdiff.solvers.noise.draw`; step 0 is the prior.
        callback: see :class:`ResidualDenoiser`.
        temperature: scales the prior noise and that of the steps.

    Returns:
        x0 ``[B, C, H, W]``, not clamped.
    """
    mu = mu.to(torch.promote_types(mu.dtype, torch.float32))
    source = Draw(noise, mu, temperature)
    start = denoiser.process.prior(torch.zeros_like(mu), source(0))
    denoiser = prepared(denoiser, mu, times)
    return mu + solver(ResidualDenoiser(denoiser, mu, callback), start, times, source)
