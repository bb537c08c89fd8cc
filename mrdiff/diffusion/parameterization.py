"""What a network is trained to predict, as two numbers: out = a y0 + b eps, with y0 = x0 - mu."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from mrdiff.diffusion.path import GaussianPath, Time, expand_like, like, remembered, wide

ParameterizationName = Literal["data", "noise", "velocity", "preconditioned", "boundary"]


@dataclass(frozen=True)
class Parameterization:
    """A linear target out = a(t) y0 + b(t) eps, by its name.

    ``preconditioned`` is sigma y0 - alpha d² eps, divided by root = sqrt(alpha² d² + sigma²), with
    d = data_std. Read back, y0 = alpha d² / root² y + sigma / root out: what the state alone says
    of y0, were that Gaussian, and what it does not, which vanishes with sigma (Karras et al. 2022,
    Table 1, in residual coordinates). ``boundary`` is the same with d = 0.1 data_std: ``data`` but
    for the earliest times, at which the state itself is the answer, so that x0 at t = 0 is x_0.
    """

    name: ParameterizationName

    @classmethod
    def named(cls, name: str) -> Parameterization:
        """The instance of that name; ValueError for any other name."""
        for known in (DATA, NOISE, VELOCITY, PRECONDITIONED, BOUNDARY):
            if known.name == name:
                return known
        names = ", ".join(get_args(ParameterizationName))
        raise ValueError(f"unknown parameterization {name!r}: use one of {names}")

    def takes(self, name: str) -> bool:
        """Whether a network that was trained to predict ``name`` can go on by learning this."""
        return name == self.name or (self.name, name) == ("boundary", "data")

    def scaled(self, path: GaussianPath, t: Tensor, data_std: float) -> tuple[Tensor, ...]:
        """(a, b) at t, and the target's standard deviation for y0 of ``data_std``, image units."""
        if self.name == "data":
            a, b = torch.ones_like(t), torch.zeros_like(t)
        elif self.name == "noise":
            a, b = torch.zeros_like(t), torch.ones_like(t)
        elif self.name == "velocity":
            frame = path.frame(wide(t))
            a, b = like(frame.y0_rate, t), like(frame.eps_rate, t)
        else:
            d = data_std if self.name == "preconditioned" else 0.1 * data_std
            alpha, sigma = path.coefficients(wide(t))
            root = torch.hypot(alpha * d, sigma)
            a, b = like(sigma / root, t), like(-alpha * d**2 / root, t)
        return a, b, torch.sqrt(a**2 * data_std**2 + (path.noise * b) ** 2)


DATA = Parameterization("data")
NOISE = Parameterization("noise")
VELOCITY = Parameterization("velocity")
PRECONDITIONED = Parameterization("preconditioned")
BOUNDARY = Parameterization("boundary")


class Reading(NamedTuple):
    """How a scaled output F of a network is read at one time: floats, or tensors of many times.

    With y the state's residual, y0 = c_skip y + c_out F and eps = e_skip y + e_out F.
    """

    c_skip: Any
    c_out: Any
    e_skip: Any
    e_out: Any


def reading(
    path: GaussianPath, parameterization: Parameterization, data_std: float, t: Tensor
) -> Reading:
    """The solution of scale F = a y0 + b eps and y = alpha y0 + sigma eps, at times t in (0, 1].

    The determinant alpha b - sigma a is -sigma for data, alpha for noise, -root for preconditioned
    and of one sign for velocity: never zero where there is a state to read.
    """
    a, b, scale = parameterization.scaled(path, t, data_std)
    alpha, sigma = path.shares(t)
    determinant = alpha * b - sigma * a
    return Reading(
        b / determinant, -sigma * scale / determinant, -a / determinant, alpha * scale / determinant
    )


@remembered
def readings(
    path: GaussianPath,
    parameterization: Parameterization,
    data_std: float,
    times: tuple[float, ...],
) -> tuple[Reading, ...]:
    """:func:`reading` of each time in plain numbers, of which no device is told or asked."""
    at = torch.tensor(times, dtype=torch.float64)
    columns = reading(path, parameterization, data_std, at)
    rows = zip(*(column.expand(at.shape).tolist() for column in columns), strict=True)
    return tuple(Reading(*row) for row in rows)


def read_at(
    path: GaussianPath, parameterization: Parameterization, data_std: float, t: Time, image: Tensor
) -> Reading:
    """:func:`reading` at a float, or at times 0-dim or ``[B]`` broadcastable over ``image``."""
    if not isinstance(t, Tensor):
        return readings(path, parameterization, data_std, (t,))[0]
    found = reading(path, parameterization, data_std, t)
    return Reading(*(expand_like(number, image) for number in found))
