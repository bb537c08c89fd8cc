"""Affine Gaussian paths, x_t = a(t) x0 + b(t) mu + s(t) eps, from the clean image to the degraded.

In residual coordinates every one of them is y_t = alpha y0 + sigma eps, with y0 = x0 - mu and
y = x - (a + b) mu: alpha and sigma are all that a solver, a loss or a grid ever asks for. A family
of models is two functions of time (:mod:`mrdiff.diffusion.process`,
:mod:`~mrdiff.diffusion.bridges`, :mod:`~mrdiff.diffusion.shifts`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])

Time = Tensor | float
"""A time in [0, 1]: a tensor, or a number, which no device is asked for."""


def expand_like(value: Tensor, image: Tensor) -> Tensor:
    """Shape a 0-dim or ``[B]`` tensor so that it broadcasts over ``image`` ``[B, C, H, W]``."""
    return value if value.ndim == 0 else value.reshape(-1, *(1,) * (image.ndim - 1))


def wide(t: Time) -> Tensor:
    """Float64 where the device has it: small-t differences cancel in float32."""
    if not isinstance(t, Tensor):
        return torch.tensor(t, dtype=torch.float64)
    if not t.is_floating_point():
        raise TypeError(f"times are floating-point tensors in [0, 1], got {t.dtype}")
    return t.float() if t.device.type == "mps" else t.double()


def like(value: Tensor, t: Time) -> Tensor:
    """In the dtype of ``t``."""
    return value.to(t.dtype) if isinstance(t, Tensor) else value


def remembered(function: F) -> F:
    """``lru_cache`` for functions of a path, which may be a user's without a hash."""
    cached = lru_cache(maxsize=256)(function)

    @wraps(function)
    def call(*args: Any) -> Any:
        try:
            hash(args)
        except TypeError:
            return function(*args)
        return cached(*args)

    return cast(F, call)


class Frame(NamedTuple):
    """What makes the probability flow a straight line at t: d(y / size) = v d(clock).

    The velocity is v = y0_rate y0 + eps_rate eps; all are tensors of the shape of t.
    """

    size: Tensor
    clock: Tensor
    y0_rate: Tensor
    eps_rate: Tensor


class GaussianPath(ABC):
    """x_t = centre(t) mu + alpha(t) (x0 - mu) + sigma(t) eps, clean at t = 0, in [0, 1].

    A subclass says what alpha and sigma are, and :meth:`centre` where it is not 1.
    It is a frozen dataclass: grids and coefficients are remembered by it. Public functions of time
    compute in float64 and return the dtype of their argument; of a float a 0-dim float64 tensor on
    the CPU.
    """

    noise: ClassVar[float] = 1.0  # 0 for a path without noise, whose sigma is a clock alone
    starts_at: float = 1.0  # the latest time that sampling starts from

    @abstractmethod
    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at float64 times of any shape; alpha / sigma falls from t = 0 to 1.

        alpha(0) is 1, or nearly; sigma is in image units. Where sigma(0) is not 0, the last
        prediction still takes the noise away.
        """

    def exact_log_snr(self, t: Tensor) -> Tensor:
        """log(alpha / sigma) at float64 times, in a form that loses no digits if there is one."""
        alpha, sigma = self.coefficients(t)
        return torch.log(alpha) - torch.log(sigma)

    def centre(self, t: Time) -> Tensor | None:
        """a + b, what x_t has of mu where residual and noise are 0; None for 1."""
        del t
        return None

    def centred(self, mu: Tensor, t: Time) -> Tensor:
        """centre(t) mu ``[B, C, H, W]``."""
        if isinstance(t, float):  # a number, so that an exported run has it as a constant
            share = _centre(self, t)
            return mu if share is None else share * mu
        centre = self.centre(t)
        return mu if centre is None else expand_like(centre, mu).to(mu.dtype) * mu

    @property
    def scale(self) -> float:
        """About the largest sigma, in image units."""
        return _largest_sigma(self)

    def shares(self, t: Time) -> tuple[Tensor, Tensor]:
        """:meth:`alpha` and :meth:`sigma`, at the cost of one of them."""
        alpha, sigma = self.coefficients(wide(t))
        return like(alpha, t), like(sigma, t)

    def alpha(self, t: Time) -> Tensor:
        """The share of the clean residual x0 - mu left at t."""
        return self.shares(t)[0]

    def sigma(self, t: Time) -> Tensor:
        """The standard deviation of the noise at t, in image units."""
        return self.shares(t)[1]

    def log_snr(self, t: Time) -> Tensor:
        """lambda_t = log(alpha_t / sigma_t), half the log-SNR; +inf where sigma is 0."""
        return like(self.exact_log_snr(wide(t)), t)

    def t_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """The inverse of :meth:`log_snr`; times in [0, 1]. By bisection, to 1e-19."""
        target = wide(log_snr)
        low, high = torch.zeros_like(target), torch.ones_like(target)
        for _ in range(64):
            middle = 0.5 * (low + high)
            before = self.exact_log_snr(middle) > target
            low, high = torch.where(before, middle, low), torch.where(before, high, middle)
        return (0.5 * (low + high)).to(log_snr.dtype)

    def elapsed(self, s: Time, t: Time) -> Tensor:
        """log(alpha_s / alpha_t): by how much the residual shrinks from s to t, of one dtype."""
        before, after = (self.coefficients(wide(u))[0] for u in (s, t))
        return like(torch.log(before) - torch.log(after), t)

    def noise_rate(self, t: Time) -> Tensor:
        """c with dy = (y - c eps) d log(1 / alpha) along the probability flow, t in (0, 1).

        c = sigma dlambda / dlog(alpha), here by a difference over 1e-5 of the way to either end.
        """
        at = wide(t)
        step = 1e-5 * at * (1 - at).clamp(min=1e-9)
        before, after = at - step, at + step
        change = self.exact_log_snr(before) - self.exact_log_snr(after)
        return like(self.coefficients(at)[1] * change / self.elapsed(before, after), t)

    def frame(self, t: Tensor) -> Frame:
        """The velocity's frame at float64 times.

        y / size runs along a circle of angle phi = atan(sigma / (scale alpha)), whose velocity is
        -sin(phi) y0 + scale cos(phi) eps (Salimans & Ho 2022, App. D, in residual coordinates).
        """
        alpha, sigma = self.coefficients(t)
        unit = sigma / self.scale
        size = torch.hypot(alpha, unit)
        # atan2, because arccos(alpha) loses half its digits near alpha = 1.
        return Frame(size, torch.atan2(unit, alpha), -unit / size, self.scale * alpha / size)

    def start_std(self, t: float) -> float:
        """Standard deviation of the state that sampling starts from at ``t``."""
        return self.noise * float(self.sigma(t))

    def prior(self, mu: Tensor, eps: Tensor) -> Tensor:
        """x_1 of eps ~ N(0, 1), whatever x0. Never clipped: clipping costs several dB."""
        return self.centred(mu, 1.0) + self.start_std(1.0) * eps

    def marginal(self, x0: Tensor, mu: Tensor, t: Time, eps: Tensor) -> Tensor:
        """x_t of ``x0``, ``mu`` in [0, 1] and eps ~ N(0, 1), ``[B, C, H, W]``, at t ``[B]``."""
        alpha, sigma = (expand_like(share, x0) for share in self.shares(t))
        x = self.centred(mu, t) + alpha * (x0 - mu)
        return x + sigma * eps if self.noise else x

    def noise_in(self, x: Tensor, x0: Tensor, mu: Tensor, t: Time) -> Tensor:
        """The eps with which :meth:`marginal` makes ``x`` of ``x0``: its inverse, for t > 0."""
        alpha, sigma = (expand_like(share, x) for share in self.shares(t))
        return (x - self.centred(mu, t) - alpha * (x0 - mu)) / sigma

    def posterior_shares(self, t: Time, s: Time) -> tuple[Tensor, Tensor, Tensor]:
        """What y_s, given y_t and y0, has of either, and its standard deviation; 0 <= s < t.

        Bayes' rule on two marginals of a Markov path (IR-SDE Eq. 13, I2SB Eq. 4, DDPM Eq. 7): with
        h = lambda_s - lambda_t it keeps sigma_s / sigma_t e^-h of y_t and 1 - e^-2h of alpha_s y0.
        Float64, of the times' shape.
        """
        h = self.exact_log_snr(wide(s)) - self.exact_log_snr(wide(t))
        (alpha, sigma), (_, sigma_t) = self.coefficients(wide(s)), self.coefficients(wide(t))
        new = -torch.expm1(-2 * h)
        return sigma / sigma_t * torch.exp(-h), alpha * new, self.noise * sigma * torch.sqrt(new)

    def posterior(
        self, x_t: Tensor, x0: Tensor, mu: Tensor, t: Time, s: Time
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of x_s given x_t and x0, for any 0 <= s < t.

        Images ``[B, C, H, W]``; times 0-dim or ``[B]``.
        """
        shares = self.posterior_shares(t, s)
        from_x_t, from_x0, std = (expand_like(share.to(x_t.dtype), x_t) for share in shares)
        mean = self.centred(mu, s) + from_x_t * (x_t - self.centred(mu, t)) + from_x0 * (x0 - mu)
        return mean, std


@remembered
def _centre(path: GaussianPath, t: float) -> float | None:
    share = path.centre(t)
    return None if share is None else float(share)


@remembered
def _largest_sigma(path: GaussianPath) -> float:
    return float(path.sigma(torch.linspace(0, 1, 1001, dtype=torch.float64)).max())


_LARGEST = 1e12


def check_positive(**numbers: float) -> None:
    """Raise ValueError for a number that is not positive, or too large to compute with."""
    for name, value in numbers.items():
        if not 0 < value <= _LARGEST:
            raise ValueError(f"{name} must be positive, at most {_LARGEST:.0e}, got {value}")
