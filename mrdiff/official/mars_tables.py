"""Tables and times of the official MR Sampler, whose raw times run from T = 100 to 0."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mrdiff.diffusion.schedule import TabulatedTheta

Schedule = Literal["cosine", "linear", "constant"]


class OfficialPoint(NamedTuple):
    """A raw time 0..T and its entries of the tables, sigma in image units."""

    time: float
    alpha: float
    sigma: float
    log_snr: float


class OfficialTables(NamedTuple):
    """The raw times 0, 1, ..., T with alpha, sigma and log-SNR, each ``[T + 1]``."""

    times: Tensor
    alpha: Tensor
    sigma: Tensor
    log_snr: Tensor

    @staticmethod
    def build(
        kind: Schedule, *, steps: int, eps: float, sigma_max: float, dtype: torch.dtype
    ) -> OfficialTables:
        """The tables of the MaRS repository, theta[0] included; alpha(T) = ``eps``."""
        theta = TabulatedTheta.irsde(kind, steps=steps, eps=eps, keep_first=True)
        integral = torch.tensor(theta.cumulative, dtype=dtype)
        alpha = torch.exp(-integral)
        # 1 - exp, not expm1: what float32 loses there is part of the official numbers.
        sigma = torch.sqrt(sigma_max**2 * (1 - torch.exp(-2 * integral)))
        times = torch.arange(steps + 1, dtype=dtype)
        return OfficialTables(times, alpha, sigma, torch.log(alpha) - torch.log(sigma))

    def at(self, times: Tensor) -> list[OfficialPoint]:
        """alpha, sigma and log-SNR at ``times`` ``[N]``, each interpolated by itself."""
        columns = [interpolate(times, self.times, table).tolist() for table in self[1:]]
        return [OfficialPoint(*row) for row in zip(times.tolist(), *columns, strict=True)]


def interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear through increasing ``knots`` ``[K]``; the end pieces go on outside."""
    left = (torch.searchsorted(knots, x) - 1).clamp(0, len(knots) - 2)
    rise, run = values[left + 1] - values[left], knots[left + 1] - knots[left]
    return values[left] + (x - knots[left]) * rise / run


def raw_times(
    tables: OfficialTables, nfe: int, kind: str, *, lambda_min: float, rho: float, offset: int
) -> Tensor:
    """The falling raw times of a run, as :class:`mrdiff.official.mars.MarsSampler` names them.

    Raises:
        ValueError: unknown ``kind``, the time schedule.
    """
    count, dtype, log_snr = nfe + 1, tables.times.dtype, tables.log_snr.flip(0)
    steps = len(log_snr) - 1
    start = steps - int(torch.searchsorted(log_snr, lambda_min))

    def karras(high: float, low: float) -> Tensor:
        share = torch.linspace(0, 1, count, dtype=dtype)
        ends = high ** (1 / rho), low ** (1 / rho)
        return (ends[0] + share * (ends[1] - ends[0])) ** rho

    match kind:
        case "linspace":
            return torch.linspace(0, start, count, dtype=dtype).flip(0)
        case "leading":
            index = torch.arange(nfe, -1, -1, dtype=dtype)
            return index * (start // count) + offset
        case "trailing":
            return torch.arange(start, 0, -steps / count, dtype=dtype)
        case "karras-t":
            return karras(steps, 1.0)
        case "karras-n":
            ratio = tables.sigma / tables.alpha
            return interpolate(karras(float(ratio[-1]), float(ratio[0])), ratio, tables.times)
        case "linear-lambda":
            low = max(float(log_snr[0]), lambda_min)
            wanted = torch.linspace(low, float(log_snr[-1]), count, dtype=dtype)
            return interpolate(wanted, log_snr, tables.times.flip(0))
    raise ValueError(f"unknown time_schedule {kind!r}")
