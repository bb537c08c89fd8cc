"""Grids of times: decreasing float64 tensors ``[nfe + 1]`` from 1 to 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mrdiff.process import MRProcess

TimeGrid = Callable[[MRProcess, int], Tensor]

# The grids that space log-SNR cannot reach t = 0, where it is infinite. With few calls they end
# where sigma is invisible (half a grey level); stopping there costs an error of order sigma²,
# so with more calls they end nearer to 0, where that error is below any solver's.
_SIGMA_END_FEW, _SIGMA_END_MANY = 0.002, 5e-5
_FEW = 5


def check_times(times: Tensor) -> Tensor:
    """The same times in float64 on the CPU, if they are a grid.

    Raises:
        ValueError: unless they are 1-d, start at 1, end at 0 and strictly decrease.
    """
    times = times.detach().to("cpu", torch.float64)
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"a time grid is a 1-d tensor of at least 2, got {tuple(times.shape)}")
    if times[0] != 1 or times[-1] != 0 or not (times.diff() < 0).all():
        raise ValueError(f"a time grid falls strictly from 1 to 0, got {times.tolist()}")
    return times


def uniform_t(process: MRProcess, nfe: int) -> Tensor:
    """Equal steps in t."""
    del process
    return torch.linspace(1, 0, nfe + 1, dtype=torch.float64)


def _edges(process: MRProcess, nfe: int) -> tuple[float, float]:
    """log-SNR at t = 1 and where the grid leaves for t = 0."""
    sigma = _SIGMA_END_FEW * min(1.0, _FEW / nfe) ** 2
    sigma = min(max(sigma, _SIGMA_END_MANY), 0.1 * process.sigma_max)
    alpha = math.sqrt(1 - (sigma / process.sigma_max) ** 2)
    # A table that keeps its first theta has a finite log-SNR at t = 0 and may not reach that far.
    bounds = process.log_snr(torch.tensor([1.0, 1e-12], dtype=torch.float64)).tolist()
    return bounds[0], min(math.log(alpha / sigma), bounds[1])


def _between_ends(process: MRProcess, log_snr: Tensor) -> Tensor:
    """The times of ``log_snr`` ``[nfe]``, the first made exactly 1, and then 0."""
    times = process.t_of_log_snr(log_snr)
    times[0] = 1.0
    return torch.cat([times, times.new_zeros(1)])


def uniform_log_snr(process: MRProcess, nfe: int) -> Tensor:
    """Equal steps in log-SNR from t = 1 to where sigma is invisible, then to 0."""
    start, end = _edges(process, nfe)
    return _between_ends(process, torch.linspace(start, end, nfe, dtype=torch.float64))


def karras(process: MRProcess, nfe: int, *, rho: float = 7.0) -> Tensor:
    """Equal steps in (sigma/alpha)^(1/rho) (Karras et al. 2022, Eq. 5), then to 0."""
    start, end = (math.exp(-edge / rho) for edge in _edges(process, nfe))
    ratio = torch.linspace(start, end, nfe, dtype=torch.float64)
    return _between_ends(process, -rho * torch.log(ratio))


_NAMED: dict[str, TimeGrid] = {
    "uniform_t": uniform_t,
    "uniform_log_snr": uniform_log_snr,
    "karras": karras,
}


def make_times(
    grid: str | TimeGrid | Tensor | Sequence[float], process: MRProcess, nfe: int
) -> Tensor:
    """The grid by name, by function ``(process, nfe) -> times`` or as given times.

    Returns:
        float64 ``[nfe + 1]``, from 1 to 0.

    Raises:
        ValueError: for an unknown name, a wrong number of times, or times that do not fall.
    """
    if isinstance(grid, str):
        if grid not in _NAMED:
            raise ValueError(f"unknown grid {grid!r}: use one of {', '.join(_NAMED)} or times")
        times = _NAMED[grid](process, nfe)
    elif callable(grid) and not isinstance(grid, Tensor):
        times = grid(process, nfe)
    else:
        times = torch.as_tensor(grid, dtype=torch.float64)
    if times.shape != (nfe + 1,):
        raise ValueError(f"a grid for nfe={nfe} has {nfe + 1} times, got {tuple(times.shape)}")
    return check_times(times)
