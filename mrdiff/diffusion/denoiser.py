"""A network, its process and its parameterization as one function x_t -> (x0, eps)."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor, nn

from mrdiff.diffusion.parameterization import Parameterization, read_at, readings
from mrdiff.diffusion.path import GaussianPath, Time, expand_like
from mrdiff.diffusion.prediction import Output, Prediction
from mrdiff.diffusion.start import Stage, check_start, first_stage
from mrdiff.networks.conditions import make_context, with_task
from mrdiff.networks.protocol import Context, prepare_network


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


def widened(image: Tensor) -> Tensor:
    """Float32 or wider, in which solvers work: under autocast a network answers in bfloat16."""
    return image if image.dtype in (torch.float32, torch.float64) else image.float()


def narrowed(image: Tensor, network: nn.Module) -> Tensor:
    """In 16 bits for a network of such weights, which may have been given them for speed."""
    weight = next(network.parameters(), image)
    return image.to(weight.dtype) if weight.dtype in (torch.bfloat16, torch.float16) else image


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
        process: the path from the clean to the degraded image.
        parameterization: what the network predicts.
        data_std: standard deviation assumed for the residual x0 - mu, in image units; > 0.
    """

    def __init__(
        self,
        network: nn.Module,
        process: GaussianPath,
        parameterization: Parameterization,
        *,
        data_std: float = 0.1,
    ) -> None:
        super().__init__()
        if not data_std > 0:
            raise ValueError(f"data_std must be positive, got {data_std}")
        self.network, self.process = network, process
        self.parameterization, self.data_std = parameterization, data_std
        self.start: Denoiser | None = None  # what comes before the path

    def start_from(self, start: Denoiser) -> None:
        """Let the path start from what ``start``, frozen, believes of x0 at its first call.

        Raises:
            ValueError: it has a start itself, other channels, or conditions that are not here.
        """
        if start.start is not None:
            raise ValueError("model.start starts from another model itself: give one that does not")
        check_start(start.network, self.network)
        self.start = start.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode, which of the start remains that of evaluation."""
        super().train(mode)
        if self.start is not None:
            self.start.eval()
        return self

    def first_stage(self, mu: Tensor, context: Context | None = None) -> Stage | None:
        """The start with its context for ``mu`` ``[B, C, H, W]``; None if the path starts there.

        Of this model's ``context`` it shares the mask; its task it judges by itself.
        """
        if self.start is None:
            return None
        mask = (context or {}).get("mask")
        return self.start, make_context(self.start.network, mu, mask=mask)

    def scaled_target(self, x0: Tensor, mu: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What the network should return for x_t, unit size. Images ``[B, C, H, W]``, t ``[B]``."""
        a, b, scale = self.parameterization.scaled(self.process, t, self.data_std)
        y0_share, eps_share = expand_like(a / scale, x0), expand_like(b / scale, x0)
        return y0_share * (x0 - mu) + eps_share * (self.process.noise * eps)

    def scaled_output(
        self, x: Tensor, t: Tensor, mu: Tensor, context: Context | None = None
    ) -> Tensor:
        """The network's raw output for the state ``x`` at ``t``; float32 or wider.

        Raises:
            NetworkError: it is no image of the state's shape.
        """
        times = t.expand(x.shape[0]) if t.ndim == 0 else t
        output = self.network(narrowed(x, self.network), narrowed(mu, self.network), times, context)
        if not isinstance(output, Tensor) or output.shape != x.shape:
            raise NetworkError(self.network, output, x)
        return widened(output)

    def forward(self, x: Tensor, t: Time, mu: Tensor, context: Context | None = None) -> Prediction:
        """Predict from ``x`` and ``mu`` ``[B, C, H, W]`` at t in (0, 1], a float or ``[B]``."""
        times = t if isinstance(t, Tensor) else x.new_full((len(x),), t)
        return self.read(self.scaled_output(x, times, mu, context), x, t, mu)

    def read(self, out: Tensor, x: Tensor, t: Time, mu: Tensor) -> Output:
        """What a scaled output for the state ``x`` at ``t`` says."""
        at = read_at(self.process, self.parameterization, self.data_std, t, x)
        return Output(out, at, x, mu, self.process.centred(mu, t))

    def prepare(
        self, mu: Tensor | None, times: Sequence[float], context: Context | None = None
    ) -> DenoiserLike:
        """The same denoiser for one sampling run, as ``(x, t, mu) -> Prediction``.

        What does not change from call to call is computed once, if no gradients are wanted.

        Args:
            mu: degraded images ``[B, C, H, W]``; None if they are cut in tiles.
            times: those of the run, in (0, 1].
            context: conditions for networks that take them.
        """
        if mu is not None:  # the classifier once a run, not once a call
            context = with_task(self.network, mu, context) or None
        if type(self).forward is not Denoiser.forward:  # a subclass wants its own called
            return BoundDenoiser(self, context) if context else self
        return PreparedDenoiser(self, mu, times, context)


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


class PreparedDenoiser(DenoiserWrapper):
    """A denoiser that made its numbers, and what its network wants, before the first call of a run.

    At a time that was not announced it is called as it is.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        mu: Tensor | None,
        times: Sequence[float],
        context: Context | None,
    ) -> None:
        super().__init__(denoiser)
        network = denoiser.network
        self._context, self._index = context, {time: i for i, time in enumerate(times)}
        self._readings = readings(
            denoiser.process, denoiser.parameterization, denoiser.data_std, tuple(times)
        )
        self._mu = None if mu is None else narrowed(mu, network)
        like = next(network.parameters(), torch.zeros(())) if mu is None else mu
        dtype = torch.promote_types(like.dtype, torch.float32)
        # Filled in where they are wanted: an upload would wait, and is nothing for a CUDA graph.
        at = torch.stack([like.new_full((), time, dtype=dtype) for time in times])
        self._times = at.unbind()
        self._run = prepare_network(network, self._mu, at, context)

    def __call__(self, x: Tensor, t: Time, mu: Tensor) -> Prediction:
        index = self._index.get(t) if isinstance(t, float) else None
        if index is None:
            return self.denoiser(x, t, mu, self._context)
        if self._run is None:
            out = self.denoiser.scaled_output(x, self._times[index], mu, self._context)
        else:
            network = self.denoiser.network
            known = narrowed(mu, network) if self._mu is None else self._mu
            out = widened(self._run(narrowed(x, network), known, index))
        centre = self.process.centred(mu, t)
        return Output(out, self._readings[index], x, mu, centre)

    def prepare(
        self, mu: Tensor | None, times: Sequence[float], context: Context | None = None
    ) -> DenoiserLike:
        return prepared(self.denoiser, mu, times, context or self._context)


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
