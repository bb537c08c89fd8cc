"""What a network is trained to predict, as two numbers: out = a y0 + b eps, with y0 = x0 - mu."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mrdiff.diffusion.process import MRProcess, Time, expand_like, remembered

ParameterizationName = Literal["data", "noise", "velocity"]


@dataclass(frozen=True)
class Parameterization:
    """A linear target out = a(t) y0 + b(t) eps: :data:`DATA`, :data:`NOISE` or :data:`VELOCITY`."""

    name: ParameterizationName

    @classmethod
    def named(cls, name: str) -> Parameterization:
        """The instance of that name; ValueError for any other name."""
        for known in (DATA, NOISE, VELOCITY):
            if known.name == name:
                return known
        raise ValueError(f"unknown parameterization {name!r}: use data, noise or velocity")

    def coefficients(self, process: MRProcess, t: Tensor) -> tuple[Tensor, Tensor]:
        """(a, b) at times t, of t's shape and dtype."""
        if self.name == "data":
            return torch.ones_like(t), torch.zeros_like(t)
        if self.name == "noise":
            return torch.zeros_like(t), torch.ones_like(t)
        # v = dy/dphi, phi = arccos(alpha) (Salimans & Ho 2022, App. D, in residual coordinates)
        alpha, sigma = process.shares(t)
        return -sigma / process.sigma_max, alpha * process.sigma_max

    def scaled(self, process: MRProcess, t: Tensor, data_std: float) -> tuple[Tensor, ...]:
        """(a, b) and the target's standard deviation for y0 of ``data_std``, in image units."""
        a, b = self.coefficients(process, t)
        return a, b, torch.sqrt(a**2 * data_std**2 + b**2)


DATA = Parameterization("data")
NOISE = Parameterization("noise")
VELOCITY = Parameterization("velocity")


class Reading(NamedTuple):
    """How a scaled output F of a network is read at one time: floats, or tensors of many times.

    With y = x - mu, y0 = c_skip y + c_out F and eps = e_skip y + e_out F.
    """

    c_skip: Any
    c_out: Any
    e_skip: Any
    e_out: Any


def reading(
    process: MRProcess, parameterization: Parameterization, data_std: float, t: Tensor
) -> Reading:
    """The solution of scale F = a y0 + b eps and y = alpha y0 + sigma eps, at times t in (0, 1].

    The determinant alpha b - sigma a is -sigma for data, alpha for noise and sigma_max for
    velocity: never zero.
    """
    a, b, scale = parameterization.scaled(process, t, data_std)
    alpha, sigma = process.shares(t)
    determinant = alpha * b - sigma * a
    return Reading(
        b / determinant, -sigma * scale / determinant, -a / determinant, alpha * scale / determinant
    )


@remembered
def readings(
    process: MRProcess,
    parameterization: Parameterization,
    data_std: float,
    times: tuple[float, ...],
) -> tuple[Reading, ...]:
    """:func:`reading` of each time in plain numbers, of which no device is told or asked."""
    at = torch.tensor(times, dtype=torch.float64)
    columns = reading(process, parameterization, data_std, at)
    rows = zip(*(column.expand(at.shape).tolist() for column in columns), strict=True)
    return tuple(Reading(*row) for row in rows)


def read_at(
    process: MRProcess, parameterization: Parameterization, data_std: float, t: Time, image: Tensor
) -> Reading:
    """:func:`reading` at a float, or at times 0-dim or ``[B]`` broadcastable over ``image``."""
    if not isinstance(t, Tensor):
        return readings(process, parameterization, data_std, (t,))[0]
    found = reading(process, parameterization, data_std, t)
    return Reading(*(expand_like(number, image) for number in found))
