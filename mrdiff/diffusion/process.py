"""The mean-reverting path: alpha, sigma and log-SNR from one primitive, ∫theta."""

# No postponed annotations: the command line reads those of the fields.

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mrdiff.diffusion.path import GaussianPath, Time, check_positive, like, wide
from mrdiff.diffusion.schedule import CosineTheta, MRSchedule


@dataclass(frozen=True)
class MRProcess(GaussianPath):
    """x_t = mu + alpha_t (x0 - mu) + sigma_t eps, alpha = exp(-∫theta) (IR-SDE Eq. 6).

    sigma = sigma_max sqrt(1 - alpha²): a variance-preserving diffusion of the residual. Of IR-SDE,
    Refusion, DA-CLIP and the MR Sampler.

    Args:
        schedule: the integral of theta.
        sigma_max: stationary standard deviation in image units (images in [0, 1]); > 0.
    """

    schedule: MRSchedule = field(default_factory=CosineTheta)
    sigma_max: float = 50 / 255

    def __post_init__(self) -> None:
        check_positive(sigma_max=self.sigma_max)

    @property
    def scale(self) -> float:
        return self.sigma_max

    def integral(self, t: Time) -> Tensor:
        """∫_0^t theta, the one primitive. ``t`` of any shape."""
        return like(self.schedule.integral(wide(t)), t)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        integral = self.schedule.integral(t)
        return torch.exp(-integral), self.sigma_max * torch.sqrt(-torch.expm1(-2 * integral))

    def exact_log_snr(self, t: Tensor) -> Tensor:
        integral = self.schedule.integral(t)
        log_sigma = 0.5 * torch.log(-torch.expm1(-2 * integral))
        return -integral - log_sigma - math.log(self.sigma_max)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        # alpha^2 = sigma_max^2 / (sigma_max^2 + e^(-2 lambda))
        integral = 0.5 * torch.log1p(torch.exp(-2 * wide(log_snr)) / self.sigma_max**2)
        return self.schedule.inverse(integral).clamp(0, 1).to(log_snr.dtype)

    def elapsed(self, s: Time, t: Time) -> Tensor:
        """∫_s^t theta: by how much the process forgets between s and t. Both of one dtype."""
        gap = self.schedule.integral(wide(t)) - self.schedule.integral(wide(s))
        return like(gap, t)

    def noise_rate(self, t: Time) -> Tensor:
        return like(self.sigma_max**2 / self.coefficients(wide(t))[1], t)

    def start_std(self, t: float) -> float:
        """sigma_max, as if nothing of the residual were left at ``t``."""
        del t
        return self.sigma_max
