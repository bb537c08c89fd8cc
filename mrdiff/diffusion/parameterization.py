"""What a network is trained to predict, as two numbers: out = a y0 + b eps, with y0 = x0 - mu."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from mrdiff.diffusion.process import MRProcess

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
        alpha = process.alpha(t)
        if self.name == "data":
            return alpha.new_ones(alpha.shape), alpha.new_zeros(alpha.shape)
        if self.name == "noise":
            return alpha.new_zeros(alpha.shape), alpha.new_ones(alpha.shape)
        # v = dy/dphi, phi = arccos(alpha) (Salimans & Ho 2022, App. D, in residual coordinates)
        return -process.sigma(t) / process.sigma_max, alpha * process.sigma_max


DATA = Parameterization("data")
NOISE = Parameterization("noise")
VELOCITY = Parameterization("velocity")


def to_data_and_noise(
    out: Tensor, y: Tensor, *, a: Tensor, b: Tensor, alpha: Tensor, sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve out = a y0 + b eps and y = alpha y0 + sigma eps for (y0, eps).

    All tensors broadcast against ``y`` ``[B, C, H, W]``. The determinant alpha b - sigma a is
    -sigma for data, alpha for noise and sigma_max for velocity: never zero for t in (0, 1].
    """
    determinant = alpha * b - sigma * a
    return (b * y - sigma * out) / determinant, (alpha * out - a * y) / determinant
