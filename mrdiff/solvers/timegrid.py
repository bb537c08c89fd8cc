"""Grids of times: decreasing float64 tensors ``[nfe + 1]`` from 1 to 0.

A path whose log-SNR falls without end (a bridge, a flow, alpha_min below 1e-3) starts where alpha /
sigma is 1e-3 / scale instead of at t = 1: the state there is the prior to within a quarter of a
grey level in all that is made of it, and nothing has to be divided by what has vanished.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor

from mrdiff.diffusion.path import GaussianPath, remembered
from mrdiff.solvers.gridfile import is_grid_file, read_grid

TimeGrid = Callable[[GaussianPath, int], Tensor]
Grid = str | PathLike[str] | TimeGrid | Tensor | Sequence[float] | Mapping[int, Sequence[float]]

# The grids that space log-SNR cannot reach t = 0, where it is infinite. They end where sigma is
# invisible, at half a grey level. Calls nearer to 0 would only follow what a network believes where
# it was hardly ever trained.
_SIGMA_END = 0.002
ALPHA_MIN = 1e-3
_CLOSEST = 1e-12  # relatively nearer times have no polynomial through them in float64


@remembered
def start_time(process: GaussianPath) -> float:
    """The path's start, or where alpha / sigma has fallen to 1e-3 / scale."""
    log_snr = math.log(ALPHA_MIN / (process.scale * math.sqrt(1 - ALPHA_MIN**2)))
    if float(process.log_snr(process.starts_at)) >= log_snr - 1e-9:
        return process.starts_at
    return float(process.t_of_log_snr(torch.tensor(log_snr, dtype=torch.float64)))


def check_times(times: Tensor, start: float = 1.0) -> Tensor:
    """The same times in float64 on the CPU; a first time of 1 becomes ``start``.

    Raises:
        ValueError: unless they are 1-d, start at 1, end at 0 and fall by a share > 1e-12.
    """
    times = times.detach().to("cpu", torch.float64)
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(f"a time grid is a 1-d tensor of at least 2, got {tuple(times.shape)}")
    apart = times[:-1] - times[1:] > _CLOSEST * times[:-1]
    if times[0] not in (1, start) or times[-1] != 0 or not apart.all():
        raise ValueError(f"a time grid falls strictly from 1 to 0, got {times.tolist()}")
    if times[1] >= start:
        raise ValueError(f"of a time grid for this process all but the first are below {start:.6f}")
    return torch.cat([times.new_full((1,), start), times[1:]])


def uniform_t(process: GaussianPath, nfe: int) -> Tensor:
    """Equal steps in t."""
    return power(process, nfe, rho=1.0)


def power(process: GaussianPath, nfe: int, *, rho: float = 2.0) -> Tensor:
    """Equal steps in t^(1/rho): rho > 1 takes small steps near t = 0."""
    return start_time(process) * torch.linspace(1, 0, nfe + 1, dtype=torch.float64) ** rho


def _ends(process: GaussianPath) -> tuple[float, float]:
    """log-SNR at the start and at t = 0, where a table that has its first theta is finite."""
    ends = torch.tensor([start_time(process), 0.0], dtype=torch.float64)
    start, end = process.log_snr(ends).tolist()
    return start, end


def _edges(process: GaussianPath, sigma_end: float) -> tuple[float, float]:
    """log-SNR at the start and where the grid leaves for t = 0, alpha being 1 to 1e-4 there."""
    start, bound = _ends(process)
    return start, min(-math.log(min(sigma_end, 0.1 * process.scale)), bound - 1e-6)


def _between_ends(process: GaussianPath, log_snr: Tensor) -> Tensor:
    """The times of ``log_snr`` ``[nfe]``, the first made exactly the start, and then 0."""
    times = process.t_of_log_snr(log_snr)
    times[0] = start_time(process)
    return torch.cat([times, times.new_zeros(1)])


def uniform_log_snr(process: GaussianPath, nfe: int, *, sigma_end: float = _SIGMA_END) -> Tensor:
    """Equal steps in log-SNR from the start to where sigma is ``sigma_end``, then to 0."""
    start, end = _edges(process, sigma_end)
    return _between_ends(process, torch.linspace(start, end, nfe, dtype=torch.float64))


def karras(
    process: GaussianPath, nfe: int, *, rho: float = 7.0, sigma_end: float = _SIGMA_END
) -> Tensor:
    """Equal steps in (sigma/alpha)^(1/rho) (Karras et al. 2022, Eq. 5), then to 0."""
    start, end = _edges(process, sigma_end)
    # In units of the start's, so that a small rho does not overflow.
    last = math.exp((start - end) / rho)
    ratio = torch.linspace(1.0, last, nfe, dtype=torch.float64)
    return _between_ends(process, (start - rho * torch.log(ratio)).clamp(max=end))


def uniform_angle(process: GaussianPath, nfe: int, *, scale: float | None = None) -> Tensor:
    """Equal steps in atan(sigma / (scale alpha)), for the path's scale arccos(alpha) of MR."""
    unit = process.scale if scale is None else scale
    start, end = (math.atan(math.exp(-edge) / unit) for edge in _ends(process))
    angle = torch.linspace(start, end, nfe + 1, dtype=torch.float64)[:-1]
    return _between_ends(process, -torch.log(unit * torch.tan(angle)))


def leading(process: GaussianPath, nfe: int) -> Tensor:
    """The MaRS repository's k / (nfe + 1), but for the first: the state is drawn for the start."""
    times = torch.arange(nfe, -1, -1, dtype=torch.float64) / (nfe + 1) * start_time(process)
    times[0] = start_time(process)
    return times


def trailing(process: GaussianPath, nfe: int) -> Tensor:
    """The MaRS repository's 1 - k / (nfe + 1), but for the last: there noise is left over."""
    times = 1 - torch.arange(nfe + 1, dtype=torch.float64) / (nfe + 1)
    times[-1] = 0
    return start_time(process) * times


_NAMED: dict[str, Callable[..., Tensor]] = {
    "uniform_t": uniform_t,
    "uniform_log_snr": uniform_log_snr,
    "uniform_angle": uniform_angle,
    "karras": karras,
    "power": power,
    "leading": leading,
    "trailing": trailing,
}
_SHAPED = {"karras": "rho", "power": "rho", "uniform_angle": "scale"}  # grids that take a number


def named_grid(name: str) -> TimeGrid:
    """A grid by name, some also with a number > 0: ``"power(2)"``, ``"uniform_angle(0.1)"``.

    It is the rho of ``karras`` and ``power``, and the scale of ``uniform_angle``.
    """
    match = re.fullmatch(r"(\w+)(?:\(([^()]*)\))?", name)
    kind, number = match.groups() if match else (name, None)
    if kind not in _NAMED:
        known = ", ".join(_NAMED)
        raise ValueError(f"unknown grid {name!r}: use one of {known}, a .yaml file or times")
    if number is None:
        return _NAMED[kind]
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if kind not in _SHAPED or not 0 < value < math.inf:
        raise ValueError(f"grid {name!r}: only {', '.join(_SHAPED)} take a number, above 0")
    return partial(_NAMED[kind], **{_SHAPED[kind]: value})


# Inverting a schedule takes milliseconds, and runs repeat.
@remembered
def _named_times(name: str, process: GaussianPath, nfe: int) -> Tensor:
    return named_grid(name)(process, nfe)


def _given_times(grid: Any, process: GaussianPath, nfe: int) -> Tensor:
    del process
    if isinstance(grid, Mapping):
        if nfe not in grid:
            known = ", ".join(map(str, sorted(grid)))
            raise ValueError(f"the grid has no times for nfe={nfe}, only for {known}")
        grid = grid[nfe]
    try:
        return torch.as_tensor(grid, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the times of a grid are numbers, got {grid!r}") from error


def as_function(grid: Grid) -> TimeGrid:
    """A grid as ``(process, nfe) -> times``; a file is read now, and once.

    Raises:
        ValueError: for an unknown name, or a grid file that cannot be read.
    """
    if isinstance(grid, PathLike):
        grid = fspath(grid)
    if isinstance(grid, str):
        if is_grid_file(grid):
            return read_grid(grid)
        named_grid(grid)  # an unknown name is known at once
        return partial(_named_times, grid)
    return grid if callable(grid) and not isinstance(grid, Tensor) else partial(_given_times, grid)


def make_times(grid: Grid, process: GaussianPath, nfe: int) -> Tensor:
    """The times of a grid for this process: float64 ``[nfe + 1]``, from 1 to 0.

    Raises:
        ValueError: as :func:`as_function`; for a wrong number of times, or times that do not fall;
            for a grid file of another process or without this NFE.
    """
    times = as_function(grid)(process, nfe)
    if times.shape != (nfe + 1,):
        raise ValueError(f"a grid for nfe={nfe} has {nfe + 1} times, got {tuple(times.shape)}")
    return check_times(times, start_time(process))
