"""MR Sampler: one exponential-integrator multistep solver of any order, clock and stochasticity.

With r = y / alpha, lambda the log-SNR, kappa = 1 + eta² and h = lambda_t - lambda_s > 0, the
exact step of the reverse SDE (eta = 1), the probability-flow ODE (eta = 0) and all in between is

    r_t = e^(-kappa h) r_s + ∫_0^h kappa e^(-kappa (h - u)) y0(lambda_s + u) du
          + (sigma_t / alpha_t) sqrt(1 - e^(-2 eta² h)) z .

The solver replaces y0(·) by the polynomial through the last ``order`` predictions; with another
clock (:mod:`mrdiff.solvers.clock`) the same is done to eps or to the velocity. For eta = 1 and
order 2 this is SDE-2 of the MR Sampler paper (ICLR 2025), for eta = 0 its ODE-1 and ODE-2. With
eta = inf nothing of the state is kept: y0 as it is predicted, noised anew, which is how consistency
models are sampled (Song et al. 2023, Algorithm 1).
"""

from __future__ import annotations

import inspect
import math
import os
from typing import Any

import torch
from torch import Tensor

from mrdiff.diffusion.path import GaussianPath, remembered
from mrdiff.diffusion.wrappers import DenoiserLike
from mrdiff.solvers.clock import Clock, ClockName
from mrdiff.solvers.corrections import AveragedDenoiser, ThresholdedDenoiser
from mrdiff.solvers.multistep import plan_steps
from mrdiff.solvers.noise import Noise
from mrdiff.solvers.run import Sampler, StepCallback, check_run, solve
from mrdiff.solvers.timegrid import Grid, TimeGrid, as_function, make_times


class MRSampler(Sampler):
    """Multistep sampler of any Gaussian path, mean-reverting diffusion above all.

    Args:
        nfe: exact number of network calls; 1 returns the network's x0 at t = 1.
        order: 1 to 4, the number of predictions that the polynomial goes through.
        eta: stochasticity >= 0: 0 the probability-flow ODE, 1 the reverse SDE, ``math.inf`` only
            with ``"data"``.
        grid: a name of :data:`mrdiff.system.names.GRIDS`, some with a number
            (``"power(2)"``); a ``.yaml`` file of ``mrdiff grid``, which is read here; a function
            ``(process, nfe) -> times`` of nothing else; the times, or times by NFE, which stay.
        prediction: the clock: a polynomial of ``"data"`` in log-SNR, of ``"noise"`` in
            sigma/alpha or of ``"velocity"`` in arccos(alpha), whatever the network was trained to
            predict. The noise form amplifies errors by 1 / alpha near t = 1: at few calls it
            overshoots with the corrector and flies off with eta > 0 (a spread 100 times too large
            at 5 calls).
        corrector: use each prediction once more, to correct the state it was made at; costs no
            call and raises the order by one (UniC of Zhao et al. 2023, in this clock). Not with
            ``"noise"`` below about 20 calls, see there.
        temperature: scales the prior noise and, for eta > 0, that of the steps; >= 0. Towards 0
            the results crowd around one restoration: often higher PSNR, no variety.
        threshold: None, or the percentile in [0, 1] of :class:`ThresholdedDenoiser`.
        average: go on with the mean of all predictions of x0 so far. Meant for temperature 0, where
            all estimate one image (:class:`AveragedDenoiser`); above, what comes out lies between a
            draw and the mean of all draws.

    Raises:
        ValueError: for a value outside its range, eta > 0 with the velocity, or a grid file that
            cannot be read.
    """

    def __init__(
        self,
        *,
        nfe: int = 5,
        order: int = 2,
        eta: float = 0.0,
        grid: Grid = "uniform_log_snr",
        prediction: ClockName = "data",
        corrector: bool = False,
        temperature: float = 1.0,
        threshold: float | None = None,
        average: bool = False,
    ) -> None:
        check_run(nfe, temperature)
        if order not in (1, 2, 3, 4):
            raise ValueError(f"order must be 1, 2, 3 or 4, got {order}")
        if not eta >= 0:
            raise ValueError(f"eta must not be negative, got {eta}")
        if prediction == "noise" and eta == math.inf:
            raise ValueError("eta must be finite with prediction='noise'")
        if prediction == "velocity" and eta > 0:
            raise ValueError(f"eta must be 0 with prediction='velocity', got {eta}")
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"threshold must lie in [0, 1], got {threshold}")
        grid = os.fspath(grid) if isinstance(grid, os.PathLike) else grid
        self._clock, self._times = Clock.named(prediction), as_function(grid)
        self.nfe, self.order, self.eta = nfe, order, eta
        self.grid, self.prediction, self.corrector = grid, prediction, corrector
        self.temperature, self.threshold, self.average = temperature, threshold, average

    def options(self) -> dict[str, Any]:
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names}

    def check(self, path: GaussianPath) -> None:
        self.times(path)

    def times(self, process: GaussianPath) -> Tensor:
        """The grid: float64 ``[nfe + 1]``, from 1 down to 0; ValueError if it does not fit."""
        return torch.tensor(_numbers(self._times, process, self.nfe), dtype=torch.float64)

    def __call__(
        self,
        denoiser: DenoiserLike,
        mu: Tensor,
        noise: Noise = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        *times, last, _ = _numbers(self._times, denoiser.process, self.nfe)
        steps = plan_steps(
            denoiser.process,
            (*times, last),
            order=self.order,
            eta=self.eta,
            clock=self._clock,
            corrector=self.corrector,
        )
        if self.threshold is not None:
            denoiser = ThresholdedDenoiser(denoiser, self.threshold)
        if self.average:
            denoiser = AveragedDenoiser(denoiser)
        # At t = 0 sigma is 0 and the state is the prediction, never an extrapolation.
        return solve(
            denoiser,
            mu,
            steps,
            last,
            noise=noise,
            temperature=self.temperature,
            callback=callback,
        )


@remembered
def _numbers(grid: TimeGrid, process: GaussianPath, nfe: int) -> tuple[float, ...]:
    return tuple(make_times(grid, process, nfe).tolist())
