"""What samplers call, and denoisers around a denoiser: with its context, under autocast."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

from torch import Tensor

from mrdiff.diffusion.path import GaussianPath, Time
from mrdiff.diffusion.prediction import Prediction
from mrdiff.networks.protocol import Context


class DenoiserLike(Protocol):
    """Anything a sampler can run."""

    @property
    def process(self) -> GaussianPath:
        """The path that the states belong to."""

    def __call__(self, x: Tensor, t: Time, mu: Tensor) -> Prediction:
        """Predict from the state ``x`` ``[B, C, H, W]`` at time ``t``; samplers give a float."""


class ContextDenoiser(DenoiserLike, Protocol):
    """A denoiser that takes conditions besides the degraded image."""

    def __call__(
        self, x: Tensor, t: Time, mu: Tensor, context: Context | None = None
    ) -> Prediction: ...


def prepared(
    denoiser: DenoiserLike,
    mu: Tensor | None,
    times: Sequence[float],
    context: Context | None = None,
) -> DenoiserLike:
    """What a sampler calls instead of ``denoiser`` in one run: see :meth:`Denoiser.prepare`."""
    make = getattr(denoiser, "prepare", None)
    if make is not None:
        ready: DenoiserLike = make(mu, times, context)
        return ready
    return BoundDenoiser(cast(ContextDenoiser, denoiser), context) if context else denoiser


Stage = tuple[Any, Context | None]  # a denoiser, and the context that it is to be given


def first_stage(denoiser: object, mu: Tensor, context: Context | None = None) -> Stage | None:
    """What runs before ``denoiser``, if anything does: see :meth:`.Denoiser.first_stage`."""
    find = getattr(denoiser, "first_stage", None)
    found: Stage | None = None if find is None else find(mu, context)
    return found


class DenoiserWrapper(ABC):
    """A denoiser around a denoiser: of the same process, and prepared by preparing that one."""

    def __init__(self, denoiser: DenoiserLike) -> None:
        self.denoiser: Any = denoiser  # some take a context as fourth argument
        self.process = denoiser.process

    @abstractmethod
    def __call__(self, x: Tensor, t: Time, mu: Tensor) -> Prediction:
        """Predict from ``x`` ``[B, C, H, W]`` at ``t`` in (0, 1]."""

    def prepare(
        self, mu: Tensor | None, times: Sequence[float], context: Context | None = None
    ) -> DenoiserLike:
        """For one sampling run, see :meth:`Denoiser.prepare`."""
        other = copy.copy(self)
        other.denoiser = prepared(self.denoiser, mu, times, context)
        return other

    def first_stage(self, mu: Tensor, context: Context | None = None) -> Stage | None:
        """That of the denoiser within."""
        return first_stage(self.denoiser, mu, context)


class BoundDenoiser(DenoiserWrapper):
    """A denoiser with its context, called as ``(x, t, mu)`` like any other."""

    def __init__(self, denoiser: ContextDenoiser, context: Context | None) -> None:
        super().__init__(denoiser)
        self._context = context

    def __call__(self, x: Tensor, t: Time, mu: Tensor) -> Prediction:
        return self.denoiser(x, t, mu, self._context)

    def prepare(
        self, mu: Tensor | None, times: Sequence[float], context: Context | None = None
    ) -> DenoiserLike:
        return prepared(self.denoiser, mu, times, context or self._context)

    def first_stage(self, mu: Tensor, context: Context | None = None) -> Stage | None:
        return first_stage(self.denoiser, mu, context or self._context)


class AutocastDenoiser(DenoiserWrapper):
    """Runs a denoiser in the context that ``autocast`` makes; float32 or wider comes out."""

    def __init__(
        self, denoiser: DenoiserLike, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        super().__init__(denoiser)
        self._autocast = autocast

    def __call__(
        self, x: Tensor, t: Time, mu: Tensor, context: Context | None = None
    ) -> Prediction:
        given = () if context is None else (context,)
        with self._autocast():
            prediction: Prediction = self.denoiser(x, t, mu, *given)
        return prediction

    def prepare(
        self, mu: Tensor | None, times: Sequence[float], context: Context | None = None
    ) -> DenoiserLike:
        with self._autocast():
            return super().prepare(mu, times, context)

    def first_stage(self, mu: Tensor, context: Context | None = None) -> Stage | None:
        found = super().first_stage(mu, context)
        return found and (AutocastDenoiser(found[0], self._autocast), found[1])
