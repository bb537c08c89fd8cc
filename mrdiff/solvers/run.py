"""What all samplers share: how they are called, and one run of a denoiser on its image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import DenoiserLike, Prediction, prepared, widened
from mrdiff.solvers.noise import Noise

# Called as (step, t, x, prediction) after each network call.
StepCallback = Callable[[int, float, Tensor, Prediction], None]


def check_run(nfe: int, temperature: float) -> None:
    """Raise ValueError for what no sampler can run with."""
    if nfe < 1:
        raise ValueError(f"nfe must be at least 1, got {nfe}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must not be negative, got {temperature}")


class Sampler(ABC):
    """Restores images in ``nfe`` network calls, from noise that is scaled by ``temperature``.

    Attributes:
        spec: the name and the options that :func:`mrdiff.make_sampler` made it of, if it did.
    """

    nfe: int
    temperature: float
    spec: Mapping[str, Any] | None = None

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The arguments that make an equal sampler."""

    @abstractmethod
    def __call__(
        self,
        denoiser: DenoiserLike,
        mu: Tensor,
        noise: Noise = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """Restore a batch.

        Args:
            denoiser: ``(x, t, mu) -> Prediction`` with ``.process``.
            mu: degraded images ``[B, C, H, W]`` in [0, 1].
            noise: None, a ``torch.Generator``, or ``(step, shape) -> N(0, 1)``; step 0 is the
                prior. None is drawn at temperature 0.
            callback: ``(step, t, x, prediction)`` after each network call.

        Returns:
            x0 ``[B, C, H, W]``, not clamped; float32 or wider.
        """


class ImageDenoiser:
    """A denoiser bound to its degraded image: ``(x, t) -> Prediction``; counts its calls.

    ``mu`` is its ``[B, C, H, W]``, float32 or wider. With ``times`` it is prepared for them.
    """

    def __init__(
        self,
        denoiser: DenoiserLike,
        mu: Tensor,
        callback: StepCallback | None = None,
        *,
        times: Tensor | None = None,
    ) -> None:
        self.process, self.mu = denoiser.process, widened(mu)
        self._denoiser = denoiser if times is None else prepared(denoiser, self.mu, times)
        self._callback, self._calls = callback, 0

    def __call__(self, x: Tensor, t: float) -> Prediction:
        time = torch.tensor(t, dtype=x.dtype, device=x.device)
        prediction = self._denoiser(x, time, self.mu)
        if self._callback is not None:
            self._callback(self._calls, t, x, prediction)
        self._calls += 1
        return prediction
