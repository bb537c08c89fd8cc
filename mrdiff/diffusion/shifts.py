"""Paths that shift the clean image to the degraded one: ResShift, RDDM, DiffUIR, flows, InDI.

Standard deviations are in image units of [0, 1]: half of what papers have that scale images to
[-1, 1]. docs/paths.md says which to choose.
"""

# No postponed annotations: the command line reads those of the fields.

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mrdiff.diffusion.path import Frame, GaussianPath, Time, check_positive, wide
from mrdiff.diffusion.process import MRProcess


@dataclass(frozen=True)
class ResShift(GaussianPath):
    """(1 - eta) x0 + eta mu + kappa sqrt(eta) eps (ResShift, Yue et al. 2023, Eq. 2 and 5).

    sqrt(eta) grows geometrically in t^power, from where the noise is ``least`` to sqrt(``end``).

    Args:
        kappa: standard deviation of the noise where eta is 1, in image units; > 0.
        least: that at t = 0; > 0.
        end: eta at t = 1; in (0, 1). The authors' last root is 0.99.
        power: how slowly it begins; > 0.
    """

    kappa: float = 1.0
    least: float = 0.02
    end: float = 0.9801
    power: float = 0.3

    def __post_init__(self) -> None:
        check_positive(kappa=self.kappa, least=self.least, power=self.power)
        if not (self.least / self.kappa) ** 2 < self.end < 1:
            raise ValueError(f"end must lie between (least / kappa)² and 1, got {self.end}")

    @property
    def scale(self) -> float:
        return self.kappa * math.sqrt(self.end)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        first = math.log(self.least / self.kappa)
        root = torch.exp(first + (0.5 * math.log(self.end) - first) * t**self.power)
        return 1 - root**2, self.kappa * root


@dataclass(frozen=True)
class _LinearNoise(GaussianPath):
    """One whose sigma is std t."""

    std: float

    def __post_init__(self) -> None:
        check_positive(std=self.std)

    @property
    def scale(self) -> float:
        return self.std


@dataclass(frozen=True)
class RDDM(_LinearNoise):
    """x0 + A (mu - x0) + B eps, A = 1 - (1 - t)², B = std t (RDDM, Liu et al. 2024, Eq. 7).

    The limit of its schedules alpha ∝ 1 - t and beta² ∝ t for many steps.

    Args:
        std: of the noise at t = 1; > 0. The authors' restoration has 0.05.
    """

    std: float = 0.05

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return (1 - t) ** 2, self.std * t


@dataclass(frozen=True)
class DiffUIR(MRProcess):
    """(1 - A) x0 + (A - D) mu + B eps with D = delta t² (DiffUIR, Zheng et al. 2024, Eq. 8).

    With 1 - A = alpha and B = sigma_max sqrt(1 - alpha²), as the authors' code has them, it is the
    mean-reverting process in which the degraded image fades, too, to 0: in the middle of the range
    of the authors' images, black of ours.

    Args:
        delta: what has faded of mu at t = 1; in [0, 1).
    """

    sigma_max: float = 0.5
    delta: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.delta < 1:
            raise ValueError(f"delta must lie in [0, 1), got {self.delta}")

    def centre(self, t: Time) -> Tensor:
        return 1 - self.delta * wide(t) ** 2


@dataclass(frozen=True)
class ConditionalVP(MRProcess):
    """alpha x0 + sigma eps: noise from which mu is absent, as in Palette and SR3 (b = 0).

    What the network sees of mu is the degraded image itself (Saharia et al. 2022). The authors'
    state is this one and (1 - alpha) / 2, because 0 is grey for them.
    """

    sigma_max: float = 0.5

    def centre(self, t: Time) -> Tensor:
        return self.alpha(wide(t))


def _straight(t: Tensor, scale: float) -> Frame:
    """dy = v dt with v = -y0 + scale eps."""
    ones = torch.ones_like(t)
    return Frame(ones, t, -ones, scale * ones)


@dataclass(frozen=True)
class FlowMatching(_LinearNoise):
    """(1 - t) x0 + t (mu + std eps), a straight line (Lipman et al. 2023, Eq. 20; PMRF).

    Args:
        std: of the noise on the degraded image; > 0.
    """

    std: float = 0.1

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, self.std * t

    def frame(self, t: Tensor) -> Frame:
        return _straight(t, self.std)


class ColdPath(GaussianPath):
    """x_t = a(t) x0 + b(t) mu, without noise (Cold Diffusion, Bansal et al. 2022).

    Eliminating mu from two of its states, x_t = b_t/b_s x_s + (a_t - a_s b_t/b_s) x0, is the step
    of a Gaussian path with sigma = b whose noise happens to be 0: sigma is that clock here. A
    network cannot predict the noise of it.
    """

    noise: ClassVar[float] = 0.0


@dataclass(frozen=True)
class InDI(ColdPath):
    """(1 - t) x0 + t mu, without noise (InDI, Delbracio and Milanfar 2023, Eq. 1).

    A network that sees mu beside the state, as all of ours do, can read x0 off any of them but the
    first: what it learns of restoring is a regression. :class:`FlowMatching` of a small std is the
    same path with the noise that the authors advise.
    """

    @property
    def scale(self) -> float:
        return 1.0

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t.clone()

    def frame(self, t: Tensor) -> Frame:
        return _straight(t, 1.0)
