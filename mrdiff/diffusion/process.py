"""The mean-reverting process: marginals, prior and posterior in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from mrdiff.diffusion.schedule import CosineTheta, MRSchedule

F = TypeVar("F", bound=Callable[..., Any])


Time = Tensor | float
"""A time in [0, 1]: a tensor, or a number, which no device is asked for."""


def expand_like(value: Tensor, image: Tensor) -> Tensor:
    """Shape a 0-dim or ``[B]`` tensor so that it broadcasts over ``image`` ``[B, C, H, W]``."""
    return value if value.ndim == 0 else value.reshape(-1, *(1,) * (image.ndim - 1))


def _wide(t: Time) -> Tensor:
    """Float64 where the device has it: small-t differences cancel in float32."""
    if not isinstance(t, Tensor):
        return torch.tensor(t, dtype=torch.float64)
    if not t.is_floating_point():
        raise TypeError(f"times are floating-point tensors in [0, 1], got {t.dtype}")
    return t.float() if t.device.type == "mps" else t.double()


def _like(value: Tensor, t: Time) -> Tensor:
    return value.to(t.dtype) if isinstance(t, Tensor) else value


def remembered(function: F) -> F:
    """``lru_cache`` for functions of a process, whose schedule may be a user's without a hash."""
    cached = lru_cache(maxsize=256)(function)

    @wraps(function)
    def call(*args: Any) -> Any:
        try:
            return cached(*args)
        except TypeError:
            return function(*args)

    return cast(F, call)


@dataclass(frozen=True)
class MRProcess:
    """x_t = mu + alpha_t (x0 - mu) + sigma_t eps (IR-SDE Eq. 6).

    Times are in [0, 1], 0 = clean. Functions of time compute in float64 and return the dtype
    of their argument; of a float a 0-dim float64 tensor on the CPU.

    Args:
        schedule: the integral of theta.
        sigma_max: stationary standard deviation in image units (images in [0, 1]); > 0.
    """

    schedule: MRSchedule = field(default_factory=CosineTheta)
    sigma_max: float = 50 / 255

    def __post_init__(self) -> None:
        if not self.sigma_max > 0:
            raise ValueError(f"sigma_max must be positive, got {self.sigma_max}")

    def integral(self, t: Time) -> Tensor:
        """∫_0^t theta, the one primitive. ``t`` of any shape."""
        return _like(self.schedule.integral(_wide(t)), t)

    def shares(self, t: Time) -> tuple[Tensor, Tensor]:
        """:meth:`alpha` and :meth:`sigma`, at the cost of one of them."""
        integral = self.schedule.integral(_wide(t))
        sigma = self.sigma_max * torch.sqrt(-torch.expm1(-2 * integral))
        return _like(torch.exp(-integral), t), _like(sigma, t)

    def alpha(self, t: Time) -> Tensor:
        """exp(-∫_0^t theta), the share of the clean residual left at t."""
        return self.shares(t)[0]

    def sigma(self, t: Time) -> Tensor:
        """sigma_max sqrt(1 - alpha_t^2), in image units."""
        return self.shares(t)[1]

    def log_snr(self, t: Time) -> Tensor:
        """lambda_t = log(alpha_t / sigma_t), half the log-SNR; +inf at t = 0."""
        integral = self.schedule.integral(_wide(t))
        log_sigma = 0.5 * torch.log(-torch.expm1(-2 * integral))
        return _like(-integral - log_sigma - math.log(self.sigma_max), t)

    def elapsed(self, s: Time, t: Time) -> Tensor:
        """∫_s^t theta: by how much the process forgets between s and t. Both of one dtype."""
        gap = self.schedule.integral(_wide(t)) - self.schedule.integral(_wide(s))
        return _like(gap, t)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The inverse of :meth:`log_snr`; times in [0, 1]."""
        wide = _wide(log_snr)
        # alpha^2 = sigma_max^2 / (sigma_max^2 + e^(-2 lambda))
        integral = 0.5 * torch.log1p(torch.exp(-2 * wide) / self.sigma_max**2)
        return self.schedule.inverse(integral).clamp(0, 1).to(log_snr.dtype)

    def marginal(self, x0: Tensor, mu: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t of ``x0``, ``mu`` in [0, 1] and eps ~ N(0, 1), ``[B, C, H, W]``, at t ``[B]``."""
        alpha, sigma = (expand_like(share, x0) for share in self.shares(t))
        return mu + alpha * (x0 - mu) + sigma * eps

    def noise_in(self, x: Tensor, x0: Tensor, mu: Tensor, t: Time) -> Tensor:
        """The eps with which :meth:`marginal` makes ``x`` of ``x0``: its inverse, for t > 0."""
        alpha, sigma = (expand_like(share, x) for share in self.shares(t))
        return (x - mu - alpha * (x0 - mu)) / sigma

    def prior(self, mu: Tensor, eps: Tensor) -> Tensor:
        """x_1 = mu + sigma_max eps. Never clipped: clipping costs several dB."""
        return mu + self.sigma_max * eps

    def posterior(
        self, x_t: Tensor, x0: Tensor, mu: Tensor, t: Time, s: Time
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of x_s given x_t and x0, for any 0 <= s < t <= 1.

        Bayes' rule on two Gaussian marginals; for neighbouring steps the mean is the optimal
        reverse state of IR-SDE Eq. 13. Images ``[B, C, H, W]``; times 0-dim or ``[B]``.
        """
        until_t, until_s = (self.schedule.integral(_wide(u)) for u in (t, s))
        gap = until_t - until_s
        ratio = torch.exp(-gap)  # alpha_t / alpha_s
        # Variances in units of sigma_max^2.
        var_step, var_t, var_s = (-torch.expm1(-2 * u) for u in (gap, until_t, until_s))
        from_x_t = expand_like((ratio * var_s / var_t).to(x_t.dtype), x_t)
        from_x0 = expand_like((torch.exp(-until_s) * var_step / var_t).to(x_t.dtype), x_t)
        mean = mu + from_x_t * (x_t - mu) + from_x0 * (x0 - mu)
        std = self.sigma_max * torch.sqrt(var_s * var_step / var_t)
        return mean, expand_like(std.to(x_t.dtype), x_t)
