"""Paths that are made to end at the degraded image: GOUB, UniDB, Brownian bridges, DDBM.

Standard deviations are in image units of [0, 1]: half of what papers have that scale images to
[-1, 1]. docs/paths.md says which to choose.
"""

# No postponed annotations: the command line reads those of the fields.

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from mrdiff.diffusion.path import GaussianPath, Time, check_positive, wide
from mrdiff.diffusion.schedule import CosineTheta, MRSchedule

# Of a bridge at its end: near enough to none, and nothing is divided by 0.
_LEFT = 1e-12
_LONGEST = 300  # ∫theta, whose exponential is taken


class PinnedPath(GaussianPath):
    """A bridge: a linear diffusion that is made to end at mu (Doob's h-transform).

    Where the diffusion alone has the marginal alpha x0 + alpha rho eps, the bridge has

        alpha (1 - p) x0 + alpha / alpha_1 p mu + alpha rho_1 sqrt(p (1 - p)) eps

    with p = rho² / rho_1² (DDBM, Zhou et al. 2024, Eq. 8). It starts at mu, without noise.
    """

    @abstractmethod
    def reference(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, p and 1 - p of the diffusion at float64 times."""

    @property
    @abstractmethod
    def end_std(self) -> float:
        """rho_1, in image units."""

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, gone, left = self.reference(t)
        left = left.clamp(min=_LEFT)
        return alpha * left, alpha * self.end_std * torch.sqrt(gone * left)

    def exact_log_snr(self, t: Tensor) -> Tensor:
        _, gone, left = self.reference(t)
        odds = torch.log(left.clamp(min=_LEFT)) - torch.log(gone)
        return 0.5 * odds - math.log(self.end_std)


@dataclass(frozen=True)
class GOUB(PinnedPath):
    """The mean-reverting process pinned to mu at t = 1 (GOUB, Yue et al. 2024, Eq. 6 and 7).

    Its Mean-ODE is ``eta=1`` at temperature 0.

    Args:
        schedule: the integral of theta.
        sigma_max: stationary standard deviation of the process, lambda of the paper; > 0.
        starts_at: the latest time that sampling starts from, in (0, 1]: (T - 1) / T for a network
            that has learnt the noise at the times k / T, of which there is none at t = 1.
    """

    schedule: MRSchedule = field(default_factory=CosineTheta)
    sigma_max: float = 30 / 255
    starts_at: float = 1.0
    _ends: ClassVar[list[float]]

    def __post_init__(self) -> None:
        check_positive(sigma_max=self.sigma_max)
        if not 0 < self.starts_at <= 1:
            raise ValueError(f"starts_at must lie in (0, 1], got {self.starts_at}")
        # ∫theta at both ends (tables may have some at 0) as numbers, of which no device is asked.
        ends = self.schedule.integral(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        object.__setattr__(self, "_ends", ends)
        if not 0 < ends[1] - ends[0] < _LONGEST:
            raise ValueError(f"alpha of the schedule must end above {math.exp(-_LONGEST):.0e}")

    def _integrals(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """∫theta from 0 to t and from t to 1."""
        here, (start, end) = self.schedule.integral(t), self._ends
        return here - start, end - here

    @property
    def scale(self) -> float:
        return self.sigma_max

    @property
    def end_std(self) -> float:
        start, end = self._ends
        return self.sigma_max * math.sqrt(math.expm1(2 * (end - start)))

    def reference(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        done, todo = self._integrals(t)
        # rho² = sigma_max² (e^(2 ∫theta) - 1); both shares without a difference of like numbers
        whole = -torch.expm1(-2 * (done + todo))
        gone = torch.exp(-2 * todo) * -torch.expm1(-2 * done) / whole
        return torch.exp(-done), gone, -torch.expm1(-2 * todo) / whole


@dataclass(frozen=True)
class UniDB(GOUB):
    """GOUB with a price gamma on missing mu, instead of a pin (UniDB, Pan et al. 2025, Eq. 13).

    With S²(s, t) the variance of the process from s to t and A_t = 1 + gamma S²(t, 1), alpha is
    e^-∫theta A_t / A_0 and sigma² = S²(0, t) A_t / A_0. For gamma -> inf it is GOUB. The authors'
    code has this alpha with GOUB's sigma, which differs by the order of 1 / (gamma sigma_max²).

    Args:
        gamma: in units of 1 / variance; > 0.
    """

    gamma: float = 1e7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(gamma=self.gamma)

    def _variances(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """∫_0^t theta, S²(0, t) and A_t / A_0."""
        done, todo = self._integrals(t)
        before, after, whole = (
            -torch.expm1(-2 * part) * self.sigma_max**2 for part in (done, todo, done + todo)
        )
        return done, before, (1 + self.gamma * after) / (1 + self.gamma * whole)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        done, variance, price = self._variances(t)
        return torch.exp(-done) * price, torch.sqrt(variance * price)

    def exact_log_snr(self, t: Tensor) -> Tensor:
        done, variance, price = self._variances(t)
        return -done + 0.5 * (torch.log(price) - torch.log(variance))


@dataclass(frozen=True)
class BrownianBridge(PinnedPath):
    """(1 - t) x0 + t mu + std sqrt(t (1 - t)) eps (I2SB, Liu et al. 2023, Eq. 11, in its own time).

    The width ``std`` is free, as in ECSI (Zhang et al. 2024).

    Args:
        std: of the Brownian motion over the whole time; > 0.
    """

    std: float = 0.5

    def __post_init__(self) -> None:
        check_positive(std=self.std)

    @property
    def scale(self) -> float:
        return self.std / 2

    @property
    def end_std(self) -> float:
        return self.std

    def reference(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ones_like(t), t, 1 - t


@dataclass(frozen=True)
class DDBMVE(BrownianBridge):
    """The Brownian bridge in the time t², that of a variance-exploding diffusion (DDBM, Table 1).

    Args:
        std: of the diffusion's noise at t = 1; > 0.
    """

    def reference(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ones_like(t), t**2, (1 - t) * (1 + t)


@dataclass(frozen=True)
class DDBMVP(PinnedPath):
    """The bridge of a variance-preserving diffusion (DDBM, Table 1; DBIM); a + b is not 1.

    Args:
        std: stationary standard deviation of the diffusion; > 0.
        beta_min, beta_slope: its rate beta_min + beta_slope t; > 0.
    """

    std: float = 0.5
    beta_min: float = 0.1
    beta_slope: float = 2.0

    def __post_init__(self) -> None:
        check_positive(std=self.std, beta_min=self.beta_min, beta_slope=self.beta_slope)
        if self._whole > _LONGEST:
            raise ValueError(f"beta_min + beta_slope / 2 must be at most {_LONGEST}")

    @property
    def _whole(self) -> float:
        """The integral of the rate."""
        return self.beta_min + 0.5 * self.beta_slope

    @property
    def scale(self) -> float:
        return self.std / 2

    @property
    def end_std(self) -> float:
        return self.std * math.sqrt(math.expm1(self._whole))

    def reference(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        done = self.beta_min * t + 0.5 * self.beta_slope * t**2
        todo = (1 - t) * (self.beta_min + 0.5 * self.beta_slope * (1 + t))
        whole = math.expm1(self._whole)
        left = torch.exp(done) * torch.expm1(todo) / whole
        return torch.exp(-0.5 * done), torch.expm1(done) / whole, left

    def centre(self, t: Time) -> Tensor:
        alpha, gone, left = self.reference(wide(t))
        return alpha * (left + math.exp(0.5 * self._whole) * gone)
