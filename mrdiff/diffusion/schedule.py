"""Noise schedules: the rate theta_t at which a process forgets its start (IR-SDE Eq. 3).

All derives from one primitive, ``integral(t)`` = ∫_0^t theta, and its inverse; alpha, sigma and
log-SNR are computed from it in :mod:`mrdiff.diffusion.process`.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

_COSINE_OFFSET = 0.008  # Nichol & Dhariwal 2021, Sec. 3.2, and IR-SDE
_LINEAR_RATIO = 0.005  # theta_0 / theta_1 of IR-SDE's linear table (1e-4 / 2e-2)


class MRSchedule(ABC):
    """∫theta and its inverse, for float64 tensors of any shape.

    Schedules do not change once made (frozen dataclasses): grids and coefficients are remembered.
    """

    @abstractmethod
    def integral(self, t: Tensor) -> Tensor:
        """∫_0^t theta for t in [0, 1]; increasing, 0 at t = 0 (continuous schedules)."""

    @abstractmethod
    def inverse(self, integral: Tensor) -> Tensor:
        """The time t in [0, 1] at which ∫_0^t theta has the given value."""


def _check_alpha_min(alpha_min: float) -> None:
    if not 0.0 < alpha_min < 1.0:
        raise ValueError(f"alpha_min must lie in (0, 1), got {alpha_min}")


@dataclass(frozen=True)
class _ContinuousTheta(MRSchedule):
    """A theta that is known but for its unit.

    Args:
        alpha_min: alpha at t = 1, the share of the clean residual that is left; in (0, 1).
    """

    alpha_min: float = 0.005

    def __post_init__(self) -> None:
        _check_alpha_min(self.alpha_min)

    @property
    def total(self) -> float:
        """∫_0^1 theta."""
        return -math.log(self.alpha_min)


class ConstantTheta(_ContinuousTheta):
    """Constant theta."""

    def integral(self, t: Tensor) -> Tensor:
        return self.total * t

    def inverse(self, integral: Tensor) -> Tensor:
        return integral / self.total


class LinearTheta(_ContinuousTheta):
    """theta_t ∝ r + (1 - r) t with r = 1/200: the linear schedule of IR-SDE."""

    @property
    def _rate(self) -> float:
        return 2 * self.total / (1 + _LINEAR_RATIO)

    def integral(self, t: Tensor) -> Tensor:
        return self._rate * (_LINEAR_RATIO * t + (1 - _LINEAR_RATIO) * t**2 / 2)

    def inverse(self, integral: Tensor) -> Tensor:
        # The root of a quadratic in the form that does not cancel for small integrals.
        value = integral / self._rate
        root = torch.sqrt(_LINEAR_RATIO**2 + 2 * (1 - _LINEAR_RATIO) * value)
        return 2 * value / (_LINEAR_RATIO + root)


def _angle_less_sine(angle: Tensor) -> Tensor:
    """(a - sin a) / 2 for a >= 0, by its series where the difference cancels."""
    square = angle**2
    series = angle * square * (1 / 12 - square * (1 / 240 - square * (1 / 10080 - square / 725760)))
    return torch.where(angle < 0.1, series, 0.5 * (angle - torch.sin(angle)))


class CosineTheta(_ContinuousTheta):
    """theta_t ∝ 1 - cos²(u_t)/cos²(u_0), u_t = (t + s)/(1 + s) π/2: IR-SDE's cosine schedule."""

    @staticmethod
    def _unscaled(t: Tensor) -> Tensor:
        # With d = u_t - u_0: ∫ sin(2 u0 + e) sin(e) de from 0 to d, which is (cos² u0 - cos² u).
        s = _COSINE_OFFSET
        u0 = s / (1 + s) * math.pi / 2
        rate = math.pi / 2 / (1 + s)  # du/dt
        d = rate * t
        odd = math.cos(2 * u0) * _angle_less_sine(2 * d) + math.sin(2 * u0) * torch.sin(d) ** 2
        return odd / (2 * rate * math.cos(u0) ** 2)

    def integral(self, t: Tensor) -> Tensor:
        return self.total * self._unscaled(t) / _WHOLE

    def inverse(self, integral: Tensor) -> Tensor:
        """By bisection, to the last bit of float64 in [0, 1]."""
        low, high = torch.zeros_like(integral), torch.ones_like(integral)
        for _ in range(64):
            middle = 0.5 * (low + high)
            above = self.integral(middle) > integral
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return 0.5 * (low + high)


_WHOLE = float(CosineTheta._unscaled(torch.ones((), dtype=torch.float64)))  # at t = 1


@lru_cache(maxsize=64)
def _uploaded(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # training may be next
        return torch.tensor(values, dtype=dtype, device=device)


@torch.compiler.assume_constant_result
def _table(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uploaded once; compiled code takes it for a constant."""
    return _uploaded(values, dtype, device)


@dataclass(frozen=True)
class TabulatedTheta(MRSchedule):
    """∫theta at t = 0, 1/steps, ..., 1 and linear in between, as the official code defines it."""

    cumulative: tuple[float, ...] = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cumulative", tuple(float(c) for c in self.cumulative))
        pairs = list(itertools.pairwise(self.cumulative))
        if not pairs or self.cumulative[0] < 0 or any(b <= a for a, b in pairs):
            raise ValueError("cumulative must hold at least 2 increasing values, the first >= 0")

    @classmethod
    def irsde(
        cls,
        kind: Literal["cosine", "linear", "constant"] = "cosine",
        *,
        steps: int = 100,
        eps: float = 0.005,
        keep_first: bool = False,
    ) -> TabulatedTheta:
        """The tables of the official code, whose time k = 0..steps is our t = k / steps.

        Args:
            kind: which table.
            steps: the official T.
            eps: alpha at t = 1; in (0, 1).
            keep_first: whether theta[0] stays in the cumulative sum, so that alpha(0) < 1: in the
                MaRS repository, not in IR-SDE's training code.
        """
        _check_alpha_min(eps)
        theta = _irsde_thetas(kind, steps)
        total = torch.cumsum(theta, dim=0) - (0 if keep_first else theta[0])
        return cls(tuple((total * (-math.log(eps) / total[-1])).tolist()))

    def integral(self, t: Tensor) -> Tensor:
        table = _table(self.cumulative, t.dtype, t.device)
        position = t * (len(table) - 1)
        left = position.floor().clamp(0, len(table) - 2).long()
        return torch.lerp(table[left], table[left + 1], position - left)

    def inverse(self, integral: Tensor) -> Tensor:
        table = _table(self.cumulative, integral.dtype, integral.device)
        right = torch.searchsorted(table, integral.contiguous()).clamp(1, len(table) - 1)
        low, high = table[right - 1], table[right]
        return ((right - 1) + (integral - low) / (high - low)) / (len(table) - 1)


def _irsde_thetas(kind: str, steps: int) -> Tensor:
    """theta[0..steps] of the official ``IRSDE`` class (times a constant that cancels)."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if kind == "constant":
        return torch.ones(steps + 1, dtype=torch.float64)
    if kind == "linear":
        return torch.linspace(1e-4, 2e-2, steps + 1, dtype=torch.float64)
    if kind == "cosine":
        grid = torch.arange(steps + 3, dtype=torch.float64) / (steps + 2)
        shifted = (grid + _COSINE_OFFSET) / (1 + _COSINE_OFFSET)
        remaining = torch.cos(shifted * math.pi / 2) ** 2
        return 1 - (remaining / remaining[0])[1:-1]
    raise ValueError(f"unknown table {kind!r}: use 'cosine', 'linear' or 'constant'")
