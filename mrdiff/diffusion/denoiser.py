"""A network, its process and its parameterization as one function x_t -> (x0, eps)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mrdiff.diffusion.parameterization import Parameterization, to_data_and_noise
from mrdiff.diffusion.process import MRProcess, expand_like
from mrdiff.networks.inference.prepared import is_plain


class Prediction:
    """What is believed of a state: clean image x0 and noise eps, both ``[B, C, H, W]``.

    Args:
        x0: the clean image.
        eps: the noise, or what computes it: most samplers never ask, and for a large photo it is
            a large tensor. It must be asked for before the state changes.
    """

    __slots__ = ("_eps", "x0")

    def __init__(self, x0: Tensor, eps: Tensor | Callable[[], Tensor]) -> None:
        self.x0 = x0
        self._eps = eps

    @property
    def eps(self) -> Tensor:
        """The noise ``[B, C, H, W]``."""
        if not isinstance(self._eps, Tensor):
            self._eps = self._eps()
        return self._eps

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.x0, self.eps))


class DenoiserLike(Protocol):
    """Anything a sampler can run: callable as ``(x, t, mu)`` with a ``process``."""

    @property
    def process(self) -> MRProcess:
        """The process that the states belong to."""

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        """Predict from the state ``x`` ``[B, C, H, W]`` at time ``t`` (0-dim or ``[B]``)."""


class ContextDenoiser(Protocol):
    """A denoiser that can be told more than the degraded image, as ``(x, t, mu, context)``."""

    @property
    def process(self) -> MRProcess:
        """The process that the states belong to."""

    def __call__(
        self, x: Tensor, t: Tensor, mu: Tensor, context: dict[str, Tensor] | None = None
    ) -> Prediction:
        """Predict from the state ``x`` ``[B, C, H, W]`` at time ``t`` (0-dim or ``[B]``)."""


class Denoiser(nn.Module):
    """The network as a predictor of the clean image and the noise.

    The network's raw output is the target divided by its standard deviation
    ``sqrt(a² data_std² + b²)``, so that it learns a quantity of unit size in every
    parameterization: the raw residual is small and learns slowly.

    Args:
        network: ``forward(x, mu, t, context=None)``, ``[B, C, H, W]`` in and out, t ``[B]``.
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
        self.network = network
        self.process = process
        self.parameterization = parameterization
        self.data_std = data_std

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
        self, x: Tensor, t: Tensor, mu: Tensor, context: dict[str, Tensor] | None = None
    ) -> Tensor:
        """The network's raw output for the state ``x`` at ``t``; float32 or wider."""
        times = t.expand(x.shape[0]) if t.ndim == 0 else t
        out = self.network(x, mu, times, context)
        # Under autocast the network may answer in bfloat16; the solver works in float32.
        return out.to(torch.promote_types(out.dtype, torch.float32))

    def forward(
        self, x: Tensor, t: Tensor, mu: Tensor, context: dict[str, Tensor] | None = None
    ) -> Prediction:
        """Predict x0 and eps.

        Args:
            x: state ``[B, C, H, W]``.
            t: 0-dim or ``[B]``, in (0, 1].
            mu: degraded image ``[B, C, H, W]`` in [0, 1].
            context: extra conditions for networks that take them.
        """
        return self._prediction(self.scaled_output(x, t, mu, context), x, t, mu)

    def prepare(
        self, mu: Tensor | None, times: Tensor, context: dict[str, Tensor] | None = None
    ) -> DenoiserLike:
        """The same denoiser for one sampling run, as ``(x, t, mu) -> Prediction``.

        A network with a method ``prepare(mu, times, context)`` computes once what does not change
        from call to call, if no gradients are wanted.

        Args:
            mu: degraded images ``[B, C, H, W]``; None if they are cut in tiles.
            times: those of the run, ``[N]``.
            context: extra conditions for networks that take them.
        """
        make = getattr(self.network, "prepare", None)
        other = type(self).forward is not Denoiser.forward  # which a subclass wants called
        if make is None or other or torch.is_grad_enabled() or not is_plain(self.network):
            return BoundDenoiser(self, context) if context else self
        times = times.to(torch.float32)
        like = next(self.network.parameters())
        run = make(mu, times.to(like), context)
        if run is None:
            return BoundDenoiser(self, context)
        return PreparedDenoiser(self, run, times, context)

    def _prediction(self, output: Tensor, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        """What the network's scaled output says of x0 and eps."""
        a, b, scale = self._target_numbers(t, x)
        out = scale * output
        y0, eps = to_data_and_noise(
            out,
            x - mu,
            a=a,
            b=b,
            alpha=expand_like(self.process.alpha(t), x),
            sigma=expand_like(self.process.sigma(t), x),
        )
        return Prediction(mu + y0, eps)


class PreparedDenoiser:
    """A denoiser whose network was prepared for the images and the times of one run.

    Args:
        denoiser: that it was.
        run: ``(x, mu, i) -> output`` of its network at ``times[i]``.
        times: float32 ``[N]``; at any other time the network is called as it is.
        context: extra conditions for networks that take them.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        run: Callable[[Tensor, Tensor, int], Tensor],
        times: Tensor,
        context: dict[str, Tensor] | None,
    ) -> None:
        self._denoiser, self._run, self._context = denoiser, run, context
        self._index = {time: i for i, time in enumerate(times.tolist())}

    @property
    def process(self) -> MRProcess:
        """The process of the denoiser."""
        return self._denoiser.process

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        """Predict from ``x`` ``[B, C, H, W]`` at ``t`` (0-dim or ``[B]``)."""
        index = self._index.get(float(t)) if t.ndim == 0 else None
        if index is None:
            return self._denoiser(x, t, mu, self._context)
        return self._denoiser._prediction(self._run(x, mu, index), x, t, mu)


class BoundDenoiser:
    """A denoiser with its context, called as ``(x, t, mu)`` like any other.

    Args:
        denoiser: takes a context as fourth argument.
        context: for all images of the calls to come.
    """

    def __init__(self, denoiser: ContextDenoiser, context: dict[str, Tensor] | None) -> None:
        self._denoiser = denoiser
        self._context = context

    @property
    def process(self) -> MRProcess:
        """The process of the denoiser."""
        return self._denoiser.process

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        """Predict in the bound context."""
        return self._denoiser(x, t, mu, self._context)

    def prepare(self, mu: Tensor | None, times: Tensor) -> DenoiserLike:
        """For one sampling run, see :meth:`Denoiser.prepare`."""
        make = getattr(self._denoiser, "prepare", None)
        return self if make is None else make(mu, times, self._context)


def prepared(denoiser: DenoiserLike, mu: Tensor | None, times: Tensor) -> DenoiserLike:
    """What a sampler calls instead of ``denoiser`` while it restores ``mu`` at ``times``.

    The same numbers to float32's accuracy, sooner; a denoiser without a method ``prepare`` as it
    is.
    """
    make = getattr(denoiser, "prepare", None)
    return denoiser if make is None else make(mu, times)


class AutocastDenoiser:
    """Runs the network in the Trainer's precision; what the sampler computes stays in float32.

    Args:
        denoiser: the denoiser to run.
        context: makes the context to run it in, e.g. ``trainer.precision_plugin.forward_context``.
    """

    def __init__(
        self, denoiser: ContextDenoiser, context: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self._denoiser = denoiser
        self._context = context

    @property
    def process(self) -> MRProcess:
        """The process of the denoiser inside."""
        return self._denoiser.process

    def __call__(
        self, x: Tensor, t: Tensor, mu: Tensor, context: dict[str, Tensor] | None = None
    ) -> Prediction:
        """Predict within the context; float32 out."""
        with self._context():
            prediction = self._denoiser(x, t, mu, context)
        return Prediction(prediction.x0.float(), lambda: prediction.eps.float())
