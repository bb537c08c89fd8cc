"""What the training loss compares: a tensor made of the network's answer with one of the truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization, read_at
from mrdiff.diffusion.path import GaussianPath, expand_like
from mrdiff.diffusion.process import MRProcess


class Objective(ABC):
    """Noises a clean image, asks the network, and puts its answer beside the right one."""

    images: ClassVar[bool] = False  # whether what it compares are images in [0, 1]

    def check(self, path: GaussianPath) -> None:  # noqa: B027  (most are for every path)
        """Raise ValueError for a path that it is not for."""

    def begin(self, denoiser: Denoiser) -> None:  # noqa: B027  (most need nothing)
        """Read, before a fit, what it needs besides; raise CheckpointError if it cannot."""

    def end(self) -> None:  # noqa: B027
        """Let go of it after the fit."""

    def parameterization(self, given: Parameterization) -> Parameterization:
        """What the network predicts under it, if it would predict ``given``."""
        return given

    def times(self, denoiser: Denoiser, t: Tensor, progress: float) -> Tensor:
        """The times that it asks for, of those drawn, ``[B]`` on the CPU: ``[..., B]``.

        ``progress`` is the share of the training that has gone by, in [0, 1].
        """
        del denoiser, progress
        return t

    @abstractmethod
    def __call__(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        mu: Tensor,
        t: Tensor,
        eps: Tensor,
        context: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(the network's, the truth), both ``[B, C, H, W]``.

        Args:
            denoiser: the network with its process and parameterization.
            x0, mu: the clean and the degraded image ``[B, C, H, W]`` in [0, 1].
            t: times ``[B]`` in (0, 1], or what :meth:`times` made of them.
            eps: noise ``[B, C, H, W]`` of the state x_t.
            context: further conditions of the network.
        """


@dataclass(frozen=True)
class ScaledTarget(Objective):
    """The network's raw output and its target of unit size.

    Args:
        error: of what the difference is: ``output`` as it is, or multiplied by what an error of
            the output is in ``x0``, in units of data_std, or in ``noise``.
    """

    error: Literal["output", "x0", "noise"] = "output"

    def __post_init__(self) -> None:
        if self.error not in ("output", "x0", "noise"):
            raise ValueError(f"error must be output, x0 or noise, got {self.error!r}")

    def __call__(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        mu: Tensor,
        t: Tensor,
        eps: Tensor,
        context: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        x = denoiser.process.marginal(x0, mu, t, eps)
        out = denoiser.scaled_output(x, t, mu, context)
        target = denoiser.scaled_target(x0, mu, t, eps)
        if self.error == "output":
            return out, target
        read = read_at(denoiser.process, denoiser.parameterization, denoiser.data_std, t, x)
        weight = read.c_out / denoiser.data_std if self.error == "x0" else read.e_out
        return weight * out, weight * target


@dataclass(frozen=True)
class OptimalStep(Objective):
    """The next state of the reverse process, as the network has it and as it should be.

    The maximum-likelihood objective of IR-SDE (Luo et al. 2023, Sec. 3.3), in residual
    coordinates y: one Euler step of the reverse SDE with the network's noise, without the
    noise of the step, against the mean of y_{t - 1/steps} given y_t and y0. With tau = ∫theta of
    the step the difference is

        2 sigma_max² / sigma_t (sinh(tau) eps - tau eps_network) + (1 + tau - e^tau) y_t

    for small steps the error of the noise, times what a step makes of it.
    """

    steps: int = 100  # T, which lead from t = 1 to 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")

    def check(self, path: GaussianPath) -> None:
        if not isinstance(path, MRProcess):
            kind = type(path).__name__
            raise ValueError(f"OptimalStep is of the mean-reverting process, not of {kind}")

    def __call__(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        mu: Tensor,
        t: Tensor,
        eps: Tensor,
        context: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        process = denoiser.process
        x = process.marginal(x0, mu, t, eps)
        y, y0 = x - process.centred(mu, t), x0 - mu
        predicted = denoiser(x, t, mu, context).eps
        s = (t - 1 / self.steps).clamp(min=0)
        # The official theta_t dt is the difference of its cumulative table: ∫_s^t theta.
        tau = expand_like(process.elapsed(s, t), x)
        # y - (-theta y - g² score) dt (Eq. 7), score = -eps / sigma, g² dt = 2 sigma c tau
        expected = y + tau * (y - 2 * expand_like(process.noise_rate(t), x) * predicted)
        optimum, _ = process.posterior(y, y0, torch.zeros_like(y), t, s)  # Prop. 3.2
        return expected, optimum
