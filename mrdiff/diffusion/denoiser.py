"""A network, its process and its parameterization as one function x_t -> (x0, eps)."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from mrdiff.diffusion.parameterization import Parameterization, to_data_and_noise
from mrdiff.diffusion.process import MRProcess, expand_like
from mrdiff.networks.conditions import with_task
from mrdiff.networks.protocol import Context, Prepared, prepare_network


class Prediction:
    """What is believed of a state: clean image x0 and noise eps, both ``[B, C, H, W]``.

    ``eps`` may be given as what computes it, since most samplers never ask: ask for it before the
    state changes.
    """

    __slots__ = ("_eps", "x0")

    def __init__(self, x0: Tensor, eps: Tensor | Callable[[], Tensor]) -> None:
        self.x0 = x0
        self._eps = eps

    @property
    def eps(self) -> Tensor:
        if not isinstance(self._eps, Tensor):
            self._eps = self._eps()
        return self._eps

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.x0, self.eps))


class DenoiserLike(Protocol):
    """Anything a sampler can run."""

    @property
    def process(self) -> MRProcess:
        """The process that the states belong to."""

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        """Predict from the state ``x`` ``[B, C, H, W]`` at time ``t`` (0-dim or ``[B]``)."""


class ContextDenoiser(DenoiserLike, Protocol):
    """A denoiser that takes conditions besides the degraded image."""

    def __call__(
        self, x: Tensor, t: Tensor, mu: Tensor, context: Context | None = None
    ) -> Prediction: ...


def widened(image: Tensor) -> Tensor:
    """Float32 or wider, in which solvers work: under autocast a network answers in bfloat16."""
    return image.to(torch.promote_types(image.dtype, torch.float32))


class NetworkError(TypeError):
    """A network answers with something else than an image like the state ``x``."""

    def __init__(self, network: nn.Module, output: object, x: Tensor) -> None:
        got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        name = f"{type(network).__module__}.{type(network).__qualname__}"
        super().__init__(f"{name} returns {got}; it must be a tensor {list(x.shape)}, like x")


class Denoiser(nn.Module):
    """The network as a predictor of the clean image and the noise.

    The network's raw output is the target divided by its standard deviation
    ``sqrt(a² data_std² + b²)``, so that it learns a quantity of unit size in every
    parameterization: the raw residual is small and learns slowly.

    Args:
        network: ``forward(x, mu, t, context=None)``, see :class:`mrdiff.networks.protocol.Network`.
        process: the mean-reverting process.
        parameterization: what the network predicts.
        data_std: standard deviation assumed for the residual x0 - mu, in image units; > 0.
    """

    def __init__(
        self,
        network: nn.Module,
        process: MRProcess,
        parameterization: Parameterization,
        *,
        data_std: float = 0.1,
    ) -> None:
        super().__init__()
        if not data_std > 0:
            raise ValueError(f"data_std must be positive, got {data_std}")
        self.network, self.process = network, process
        self.parameterization, self.data_std = parameterization, data_std

    def _target_numbers(self, t: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(a, b, standard deviation of the target), broadcastable over ``image``."""
        a, b = self.parameterization.coefficients(self.process, t)
        scale = torch.sqrt(a**2 * self.data_std**2 + b**2)
        return expand_like(a, image), expand_like(b, image), expand_like(scale, image)

    def scaled_target(self, x0: Tensor, mu: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What the network should return for x_t, unit size. Images ``[B, C, H, W]``."""
        a, b, scale = self._target_numbers(t, x0)
        return (a * (x0 - mu) + b * eps) / scale

    def scaled_output(
        self, x: Tensor, t: Tensor, mu: Tensor, context: Context | None = None
    ) -> Tensor:
        """The network's raw output for the state ``x`` at ``t``; float32 or wider.

        Raises:
            NetworkError: it is no image of the state's shape.
        """
        times = t.expand(x.shape[0]) if t.ndim == 0 else t
        output = self.network(x, mu, times, context)
        if not isinstance(output, Tensor) or output.shape != x.shape:
            raise NetworkError(self.network, output, x)
        return widened(output)

    def forward(
        self, x: Tensor, t: Tensor, mu: Tensor, context: Context | None = None
    ) -> Prediction:
        """Predict from ``x`` and ``mu`` ``[B, C, H, W]`` at ``t`` (0-dim or ``[B]``) in (0, 1]."""
        return self._prediction(self.scaled_output(x, t, mu, context), x, t, mu)

    def prepare(
        self, mu: Tensor | None, times: Tensor, context: Context | None = None
    ) -> DenoiserLike:
        """The same denoiser for one sampling run, as ``(x, t, mu) -> Prediction``.

        What does not change from call to call is computed once, if no gradients are wanted.

        Args:
            mu: degraded images ``[B, C, H, W]``; None if they are cut in tiles.
            times: those of the run, ``[N]``.
            context: conditions for networks that take them.
        """
        run, times = None, times.to(torch.float32)
        if mu is not None:  # the classifier once a run, not once a call
            context = with_task(self.network, mu, context) or None
        if type(self).forward is Denoiser.forward:  # a subclass wants its own called
            run = prepare_network(self.network, mu, times, context)
        if run is None:
            return BoundDenoiser(self, context) if context else self
        return PreparedDenoiser(self, run, times, context)

    def _prediction(self, output: Tensor, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        """What the network's scaled output says of x0 and eps."""
        a, b, scale = self._target_numbers(t, x)
        alpha, sigma = (expand_like(of(t), x) for of in (self.process.alpha, self.process.sigma))
        y0, eps = to_data_and_noise(scale * output, x - mu, a=a, b=b, alpha=alpha, sigma=sigma)
        return Prediction(mu + y0, eps)


def prepared(
    denoiser: DenoiserLike, mu: Tensor | None, times: Tensor, context: Context | None = None
) -> DenoiserLike:
    """What a sampler calls instead of ``denoiser`` in one run: see :meth:`Denoiser.prepare`."""
    make = getattr(denoiser, "prepare", None)
    if make is not None:
        ready: DenoiserLike = make(mu, times, context)
        return ready
    return BoundDenoiser(cast(ContextDenoiser, denoiser), context) if context else denoiser


class DenoiserWrapper(ABC):
    """A denoiser around a denoiser: of the same process, and prepared by preparing that one."""

    def __init__(self, denoiser: DenoiserLike) -> None:
        self.denoiser: Any = denoiser  # some take a context as fourth argument
        self.process = denoiser.process

    @abstractmethod
    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        """Predict from ``x`` ``[B, C, H, W]`` at ``t`` (0-dim or ``[B]``) in (0, 1]."""

    def prepare(
        self, mu: Tensor | None, times: Tensor, context: Context | None = None
    ) -> DenoiserLike:
        """For one sampling run, see :meth:`Denoiser.prepare`."""
        other = copy.copy(self)
        other.denoiser = prepared(self.denoiser, mu, times, context)
        return other


class PreparedDenoiser(DenoiserWrapper):
    """A denoiser whose network was prepared: ``run(x, mu, i)`` is its output at ``times[i]``.

    At any other time it is called as it is.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        run: Prepared,
        times: Tensor,
        context: Context | None,
    ) -> None:
        super().__init__(denoiser)
        self._predict, self._run, self._context = denoiser._prediction, run, context
        self._index = {time: i for i, time in enumerate(times.tolist())}

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        index = self._index.get(float(t)) if t.ndim == 0 else None
        if index is None:
            return self.denoiser(x, t, mu, self._context)
        return self._predict(widened(self._run(x, mu, index)), x, t, mu)

    def prepare(
        self, mu: Tensor | None, times: Tensor, context: Context | None = None
    ) -> DenoiserLike:
        return prepared(self.denoiser, mu, times, context or self._context)


class BoundDenoiser(DenoiserWrapper):
    """A denoiser with its context, called as ``(x, t, mu)`` like any other."""

    def __init__(self, denoiser: ContextDenoiser, context: Context | None) -> None:
        super().__init__(denoiser)
        self._context = context

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        return self.denoiser(x, t, mu, self._context)

    def prepare(
        self, mu: Tensor | None, times: Tensor, context: Context | None = None
    ) -> DenoiserLike:
        return prepared(self.denoiser, mu, times, context or self._context)


class AutocastDenoiser(DenoiserWrapper):
    """Runs a denoiser in the context that ``autocast`` makes; float32 or wider comes out."""

    def __init__(
        self, denoiser: DenoiserLike, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        super().__init__(denoiser)
        self._autocast = autocast

    def __call__(
        self, x: Tensor, t: Tensor, mu: Tensor, context: Context | None = None
    ) -> Prediction:
        given = () if context is None else (context,)
        with self._autocast():
            prediction = self.denoiser(x, t, mu, *given)
        return Prediction(widened(prediction.x0), lambda: widened(prediction.eps))

    def prepare(
        self, mu: Tensor | None, times: Tensor, context: Context | None = None
    ) -> DenoiserLike:
        with self._autocast():
            return super().prepare(mu, times, context)
