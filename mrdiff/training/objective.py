"""What the training loss compares: a tensor made of the network's answer with one of the truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.path import GaussianPath, expand_like


class Objective(ABC):
    """Noises a clean image, asks the network, and puts its answer beside the right one."""

    def check(self, path: GaussianPath) -> None:  # noqa: B027  (most are for every path)
        """Raise ValueError for a path that it is not for."""

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
            t: times ``[B]`` in (0, 1].
            eps: noise ``[B, C, H, W]`` of the state x_t.
            context: further conditions of the network.
        """


class ScaledTarget(Objective):
    """The network's raw output and its target of unit size."""

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
        return out, denoiser.scaled_target(x0, mu, t, eps)


@dataclass(frozen=True)
class OptimalStep(Objective):
    """The next state of the reverse process, as the network has it and as it should be.

    The maximum-likelihood objective of IR-SDE (Luo et al. 2023, Sec. 3.3), in residual
    coordinates y = x - mu: one Euler step of the reverse SDE with the network's noise, without the
    noise of the step, against the mean of y_{t - 1/steps} given y_t and y0. With tau = ∫theta of
    the step the difference is

        2 sigma_max² / sigma_t (sinh(tau) eps - tau eps_network) + (1 + tau - e^tau) y_t

    on the mean-reverting path: for small steps the error of the noise, times what a step makes of
    it.
    """

    steps: int = 100  # T, which lead from t = 1 to 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")

    def check(self, path: GaussianPath) -> None:
        """Its step is measured in log(1 / alpha), which is infinite where alpha ends at 0."""
        if float(path.alpha(1.0)) < 1e-6:
            kind = type(path).__name__
            raise ValueError(f"OptimalStep is not for {kind}, whose alpha ends at 0: leave it out")

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
