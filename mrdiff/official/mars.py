"""The official MR Sampler (MaRS, ICLR 2025) formula for formula, to compare with.

:class:`mrdiff.MRSampler` is the sampler to use. Raw times run from T = 100 to 0. Peculiarities of
the official code, all reproduced; numbers for its cosine table, sigma_max = 50/255 and float64:

* alpha, sigma and lambda are interpolated one by one: between entries log(alpha / sigma) is off
  lambda by up to 0.054, alpha² + (sigma / sigma_max)² off 1 by up to 2.0e-4 (0.0042: constant).
* The data form then leaks mu: a white image that needs no change ends 0.25 / 255 off white
  (linear-lambda, NFE 7, no noise).
* theta[0] stays in the sum: sigma is 0.57 / 255 at time 0 (constant table 15.8 / 255).
* Order 3 has its quadratic term at half weight and converges at order 2.
* Below 10 steps the order falls before the end, but the last step, the longest in lambda, is of
  full order again: at NFE 5 order 2 weighs the last two predictions 3.22 and -2.24.
* The last step of the SDE adds noise like the others, of deviation 0.57 / 255.
* The prior assumes T, but "leading" starts at 80 for NFE 5 or 20 and lambda_min = -3 at 93.
* "trailing" ends at T / (nfe + 1), "karras-t" at 1: sigma there is 16 / 255 (NFE 5), 1.1 / 255.
* "trailing" makes fewer than nfe steps after a strong cut (lambda_min = -2: 4 for 5).
* The karras schedules ignore lambda_min; karras-n interpolates times, it merges or rounds none.
* In noise form denoise_last returns the predicted noise as the image, thresholding clips noise.
* nfe = order - 1 makes one call more than nfe, steps twice to time 0 and reads its grid at -1.
* Not reproduced: smaller nfe, which fails, and equal times ("leading" with nfe >= T), which give
  NaN at order 2 and 3, are refused; a run does not end early at the first NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import widened
from mrdiff.diffusion.path import GaussianPath
from mrdiff.diffusion.process import MRProcess
from mrdiff.diffusion.wrappers import DenoiserLike
from mrdiff.official.mars_tables import OfficialPoint, OfficialTables, Schedule, raw_times
from mrdiff.solvers.noise import Noise, RunNoise
from mrdiff.solvers.run import ImageDenoiser, PathError, Sampler, StepCallback, begin

__all__ = ["MarsSampler", "OfficialTables"]

Predict = Callable[[Tensor, Tensor, OfficialPoint], Tensor]  # of (x, mu, where)


def order_plan(count: int, order: int) -> list[tuple[int, int]]:
    """(index of the time stepped to, order of the step) for each step on ``count + 1`` times.

    With ``count == order - 1`` the last step is done twice.
    """
    warm_up = [(i, i) for i in range(1, order)]
    inner = [(i, order if count >= 10 else min(order, count - i)) for i in range(order, count)]
    return [*warm_up, *inner, (count, order)]


def _integral(grid: list[OfficialPoint], i: int, order: int, span: float, sign: int) -> list[float]:
    """Weights of the predictions, newest first, in the integral over the step to ``grid[i]``."""
    # In the repeated last step of order_plan j - 1 can be -1, the end, as in the official code.
    h, *older = (grid[j].log_snr - grid[j - 1].log_snr for j in range(i, i - order, -1))
    constant = math.expm1(sign * span)
    if order == 1:
        return [constant]
    linear = sign * constant / span - 1
    r0 = older[0] / h
    if order == 2:
        return [constant + linear / r0, -linear / r0]
    r1 = older[1] / h
    quadratic = sign * linear / span - 0.5  # the integral of (u / h)², halved
    bend = (linear * r0 + quadratic) / (r0 + r1)
    new, old = (linear + bend) / r0, bend / r1
    return [constant + new, -new - old, old]


class OfficialStep(NamedTuple):
    """x_t = decay x_s + shift mu + ∑_j weights_j q_j + noise z; the newest prediction q first."""

    decay: float
    shift: float
    weights: list[float]
    noise: float


def data_step(grid: list[OfficialPoint], i: int, order: int, kappa: int) -> OfficialStep:
    """The step to ``grid[i]`` in data form, of the ODE (``kappa`` 1) or the SDE (2)."""
    s, t = grid[i - 1], grid[i]
    h = t.log_snr - s.log_snr
    weights = [-t.alpha * w for w in _integral(grid, i, order, kappa * h, -1)]
    ratio = t.sigma / s.sigma
    if kappa == 1:
        return OfficialStep(ratio, 1 - ratio + ratio * s.alpha - t.alpha, weights, 0.0)
    gain = -math.expm1(-2 * h)
    shift = 1 - t.alpha / s.alpha * (1 - gain) - t.alpha * gain
    return OfficialStep(ratio * math.exp(-h), shift, weights, t.sigma * math.sqrt(gain))


def noise_step(grid: list[OfficialPoint], i: int, order: int, kappa: int) -> OfficialStep:
    """The same in noise form."""
    s, t = grid[i - 1], grid[i]
    h = t.log_snr - s.log_snr
    weights = [-kappa * t.sigma * w for w in _integral(grid, i, order, h, 1)]
    ratio = t.alpha / s.alpha
    noise = t.sigma * math.sqrt((kappa - 1) * math.expm1(2 * h))
    return OfficialStep(ratio, 1 - ratio, weights, noise)


def dynamic_threshold(image: Tensor, ratio: float, maximum: float) -> Tensor:
    """Clip each image of ``[B, C, H, W]`` to ±s and divide by s, a quantile in [1, maximum]."""
    s = torch.quantile(image.abs().flatten(1), ratio, dim=1).clamp(1, maximum)[:, None, None, None]
    return torch.clamp(image, -s, s) / s


def convert(
    pair: tuple[str, str], out: Tensor, x: Tensor, mu: Tensor, p: OfficialPoint, sigma_max: float
) -> Tensor:
    """x0 or the noise (the second of ``pair``) from a network that returns the first, at ``p``."""
    y = x - mu
    match pair:
        case ("data", "data") | ("noise", "noise"):
            return out
        case ("noise", "data"):
            return mu + (y - p.sigma * out) / p.alpha
        case ("velocity", "data"):
            return mu + p.alpha * y - p.sigma / sigma_max * out
        case ("data", "noise"):
            return (y - p.alpha * (out - mu)) / p.sigma
        case ("velocity", "noise"):
            return (p.alpha * out + p.sigma / sigma_max * y) / sigma_max
    raise ValueError(f"fit_target must be 'data', 'noise' or 'velocity', got {pair[0]!r}")


@dataclass(frozen=True, kw_only=True)
class MarsSampler(Sampler):
    """The official sampler under its own options; ValueError where the official code fails."""

    temperature = 1.0
    nfe: int = 20  # steps asked for
    solver: Literal["ode", "sde"] = "ode"
    order: int = 2  # up to 3 for the ODE, 2 for the SDE
    parameterization: Literal["data", "noise"] = "data"  # the form of the solver
    time_schedule: str = "linspace"  # leading, trailing, karras-n, karras-t, linear-lambda
    lambda_min: float = -math.inf  # no time has a log-SNR below it
    rho: float = 7.0  # exponent of the karras schedules
    timestep_offset: int = 0  # added to the times of "leading"
    thresholding: bool = False  # see dynamic_threshold
    threshold_ratio: float = 0.995
    threshold_max: float = 1.5
    denoise_last: bool = False  # return the last prediction, make no last step
    schedule: Schedule = "cosine"
    steps: int = 100  # T of the tables
    eps: float = 0.005  # alpha(T)
    dtype: torch.dtype = torch.float32  # of tables and times
    output_range: tuple[float, float] | None = (0.0, 1.0)  # None: the end is not clipped

    def __post_init__(self) -> None:
        if self.order not in {"ode": (1, 2, 3), "sde": (1, 2)}.get(self.solver, ()):
            raise ValueError(f"solver {self.solver!r} has no order {self.order}")
        if self.parameterization not in ("data", "noise"):
            raise ValueError(f"unknown parameterization {self.parameterization!r}")

    def options(self) -> dict[str, Any]:
        return asdict(self)

    def grid(self, sigma_max: float) -> list[OfficialPoint]:
        """The points of a run, from the first raw time to the last."""
        tables = OfficialTables.build(
            self.schedule, steps=self.steps, eps=self.eps, sigma_max=sigma_max, dtype=self.dtype
        )
        times = raw_times(
            tables,
            self.nfe,
            self.time_schedule,
            lambda_min=self.lambda_min,
            rho=self.rho,
            offset=self.timestep_offset,
        )
        grid, least = tables.at(times), max(2, self.order)
        if len(grid) < least or any(b.time >= a.time for a, b in pairwise(grid)):
            raise ValueError(
                f"order {self.order} needs {least} or more falling times, not {times.tolist()}"
            )
        return grid

    def check(self, path: GaussianPath) -> None:
        if type(path) is not MRProcess:  # of those built upon it the states are others
            kind = type(path).__name__
            raise PathError(f"the official sampler is of the mean-reverting process, not of {kind}")

    def __call__(
        self,
        denoiser: DenoiserLike,
        mu: Tensor,
        noise: Noise = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        self.check(denoiser.process)
        mu = begin(denoiser, mu)
        image = ImageDenoiser(denoiser, mu, callback)

        def predict(x: Tensor, mu: Tensor, point: OfficialPoint) -> Tensor:
            prediction = image(x, point.time / self.steps)
            return prediction.x0 if self.parameterization == "data" else prediction.eps

        return self._solve(predict, mu, denoiser.process.scale, noise)

    def sample_raw(
        self,
        network: Callable[[Tensor, Tensor, float], Tensor],
        mu: Tensor,
        noise: Noise = None,
        *,
        fit_target: Literal["data", "noise", "velocity"],
        sigma_max: float,
    ) -> Tensor:
        """Restore with a bare network ``(x, mu, raw time) -> fit_target``, ``[B, C, H, W]``."""

        def predict(x: Tensor, mu: Tensor, point: OfficialPoint) -> Tensor:
            pair = fit_target, self.parameterization
            return convert(pair, network(x, mu, point.time), x, mu, point, sigma_max)

        return self._solve(predict, mu, sigma_max, noise)

    def _solve(self, predict: Predict, mu: Tensor, sigma_max: float, noise: Noise) -> Tensor:
        grid, kappa = self.grid(sigma_max), 1 if self.solver == "ode" else 2
        coefficients = data_step if self.parameterization == "data" else noise_step
        mu = widened(mu)
        plan = order_plan(len(grid) - 1, self.order)
        draw, history = RunNoise(noise, mu).draw, list[Tensor]()
        x = mu + sigma_max * draw(0)
        for number, (i, order) in enumerate(plan, start=1):
            q = predict(x, mu, grid[i - 1]).to(x.dtype)
            if self.thresholding:
                q = dynamic_threshold(q, self.threshold_ratio, self.threshold_max)
            if self.denoise_last and number == len(plan):
                x = q
                break
            history = [q, *history[:2]]
            step = coefficients(grid, i, order, kappa)
            x = step.decay * x + step.shift * mu
            for weight, old in zip(step.weights, history, strict=False):
                x = x + weight * old
            if step.noise:
                x = x + step.noise * draw(number)
        return x if self.output_range is None else x.clamp(*self.output_range)
