"""What all samplers share: how they are called, and one run of a denoiser on its image.

Every solver here is linear: with y = x - (a + b) mu of the path, and q = a y0 + b eps of the
predictions, a step is

    y_t = decay y_s + ∑_j weights_j q_j + noise z ,

the newest q first. All its numbers are floats that are known before the first call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import widened
from mrdiff.diffusion.path import GaussianPath, remembered
from mrdiff.diffusion.prediction import Output, Prediction
from mrdiff.diffusion.wrappers import BoundDenoiser, DenoiserLike, first_stage, prepared
from mrdiff.solvers.noise import Noise, RunNoise
from mrdiff.solvers.timegrid import start_time

# Called as (step, t, x, prediction) after each network call.
StepCallback = Callable[[int, float, Tensor, Prediction], None]


def check_run(nfe: int, temperature: float) -> None:
    """Raise ValueError for what no sampler can run with."""
    if nfe < 1:
        raise ValueError(f"nfe must be at least 1, got {nfe}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must not be negative, got {temperature}")


class PathError(ValueError):
    """A sampler that cannot run on a path."""


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

    def check(self, path: GaussianPath) -> None:  # noqa: B027  (those of users need not)
        """Raise ValueError if it cannot run on this path: PathError, or for a grid of another."""

    def suits(self, path: GaussianPath) -> bool:
        """Whether :meth:`check` raises no PathError."""
        try:
            self.check(path)
        except PathError:
            return False
        return True

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
        times: Sequence[float] | None = None,
    ) -> None:
        self.process, self.mu = denoiser.process, widened(mu)
        self._denoiser = denoiser if times is None else prepared(denoiser, self.mu, times)
        self._callback, self._calls = callback, 0

    def __call__(self, x: Tensor, t: float) -> Prediction:
        prediction = self._denoiser(x, t, self.mu)
        if self._callback is not None:
            self._callback(self._calls, t, x, prediction)
        self._calls += 1
        return prediction


class Step(NamedTuple):
    """One network call, at ``t``, and what is done with it: see the module's equation."""

    t: float
    decay: float
    weights: tuple[float, ...]
    noise: float = 0.0
    a: float = 1.0
    b: float = 0.0


_TINY = 1e-20  # of a scale: far from the ends of float32


def solve(
    denoiser: DenoiserLike,
    mu: Tensor,
    steps: Sequence[Step],
    last: float | None,
    *,
    noise: Noise = None,
    temperature: float = 1.0,
    callback: StepCallback | None = None,
) -> Tensor:
    """Take the steps from the prior; arguments as of :class:`Sampler`.

    ``last`` is the time of one call more, whose x0 is the result; without it that is the state.
    """
    times = [*(step.t for step in steps), *([] if last is None else [last])]
    predict = ImageDenoiser(denoiser, begin(denoiser, mu), callback, times=times)
    mu, draw, history = predict.mu, RunNoise(noise, predict.mu, temperature), list[Tensor]()
    # With z = y / scale, the scale being the product of all decays, a step only adds to z.
    z, scale = torch.zeros_like(mu), 1.0
    path = predict.process
    draw.add_to(z, 0, _start_std(path, times[0]))
    for i, step in enumerate(steps, start=1):
        del history[len(step.weights) - 1 :]
        x = torch.add(path.centred(mu, step.t), z, alpha=scale)
        prediction = predict(x, step.t)
        history.insert(0, _quantity(step, prediction, z, scale, mu))
        scale *= step.decay
        if not _TINY < scale < 1 / _TINY:
            z, scale = z.mul_(scale), 1.0
        for weight, q in zip(step.weights, history, strict=True):
            z.add_(q, alpha=weight / scale)
        draw.add_to(z, i, path.noise * step.noise / scale)
    x = torch.add(path.centred(mu, last or 0.0), z, alpha=scale)
    return x if last is None else predict(x, last).x0


@remembered
def _start_std(path: GaussianPath, t: float) -> float:
    return path.start_std(t)


def begin(denoiser: DenoiserLike, mu: Tensor) -> Tensor:
    """Where the path starts: ``mu`` ``[B, C, H, W]``, or its start's x0, one call without noise.

    A start trained by regression gives the posterior mean there, from which the path goes on to a
    sample (PMRF, Ohayon et al. 2025, Algorithm 1).
    """
    stage = first_stage(denoiser, mu)
    if stage is None:
        return mu
    model = BoundDenoiser(*stage)
    return solve(model, mu, (), start_time(model.process), temperature=0.0)


def _quantity(step: Step, prediction: Prediction, z: Tensor, scale: float, mu: Tensor) -> Tensor:
    """q = a y0 + b eps, as predicted in the state y = scale z."""
    if isinstance(prediction, Output):
        c_skip, c_out, e_skip, e_out = prediction.reading
        skip = step.a * c_skip + step.b * e_skip
        gain = step.a * c_out + step.b * e_out
        if skip:
            return torch.mul(z, skip * scale).add_(prediction.out, alpha=gain)
        return prediction.out if gain == 1 else prediction.out * gain
    if not step.a:
        return step.b * prediction.eps
    y0 = step.a * (prediction.x0 - mu)
    return y0.add_(prediction.eps, alpha=step.b) if step.b else y0
