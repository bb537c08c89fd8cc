"""A network, its process and its parameterization as one function x_t -> (x0, eps)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from mrdiff.diffusion.parameterization import Parameterization, read_at, readings
from mrdiff.diffusion.path import GaussianPath, Time, expand_like
from mrdiff.diffusion.prediction import Output, Prediction
from mrdiff.diffusion.wrappers import BoundDenoiser, DenoiserLike, DenoiserWrapper, Stage, prepared
from mrdiff.networks.conditions import make_context, with_task
from mrdiff.networks.protocol import (
    Context,
    image_channels,
    known_features,
    prepare_network,
    takes_mask,
)


def widened(image: Tensor) -> Tensor:
    """Float32 or wider, in which solvers work: under autocast a network answers in bfloat16."""
    return image if image.dtype in (torch.float32, torch.float64) else image.float()


def narrowed(image: Tensor, network: nn.Module) -> Tensor:
    """In 16 bits for a network of such weights, which may have been given them for speed."""
    weight = next(network.parameters(), image)
    return image.to(weight.dtype) if weight.dtype in (torch.bfloat16, torch.float16) else image


def check_start(start: nn.Module, network: nn.Module) -> None:
    """Raise ValueError if a path's network cannot follow the network ``start``."""
    ours, theirs = image_channels(network), image_channels(start)
    if theirs != ours:
        raise ValueError(f"model.start has {theirs} image channels, model.network has {ours}")
    if known_features(start):
        raise ValueError("model.start takes features of each photo: give one that does without")
    if takes_mask(start) and not takes_mask(network):
        raise ValueError("model.start takes masks: set mask of model.network, too")


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
