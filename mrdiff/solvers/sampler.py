"""MR Sampler: one exponential-integrator multistep solver of any order, clock and stochasticity.

With r = y / alpha, lambda the log-SNR, kappa = 1 + eta² and h = lambda_t - lambda_s > 0, the
exact step of the reverse SDE (eta = 1), the probability-flow ODE (eta = 0) and all in between is

    r_t = e^(-kappa h) r_s + ∫_0^h kappa e^(-kappa (h - u)) y0(lambda_s + u) du
          + (sigma_t / alpha_t) sqrt(1 - e^(-2 eta² h)) z .

The solver replaces y0(·) by the polynomial through the last ``order`` predictions; with another
clock (:mod:`mrdiff.solvers.clock`) the same is done to eps or to the velocity. For eta = 1 and
order 2 this is SDE-2 of the MR Sampler paper (ICLR 2025), for eta = 0 its ODE-1 and ODE-2.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import DenoiserLike, prepared
from mrdiff.diffusion.process import MRProcess
from mrdiff.names import BASELINES, SAMPLERS
from mrdiff.solvers.averaging import AveragedDenoiser
from mrdiff.solvers.baselines import BaselineSampler
from mrdiff.solvers.clock import Clock, ClockName
from mrdiff.solvers.gridfile import is_grid_file
from mrdiff.solvers.multistep import Step, plan_steps
from mrdiff.solvers.noise import Noise
from mrdiff.solvers.presets import EVIDENCE, PAPER, chosen
from mrdiff.solvers.residual import Draw, ImageDenoiser, StepCallback
from mrdiff.solvers.threshold import ThresholdedDenoiser
from mrdiff.solvers.timegrid import Grid, make_times, named_grid


class MRSampler:
    """Multistep sampler of mean-reverting diffusion.

    Args:
        nfe: exact number of network calls; 1 returns the network's x0 at t = 1.
        order: 1 to 4, the number of predictions that the polynomial goes through.
        eta: stochasticity in [0, 1]: 0 the probability-flow ODE, 1 the reverse SDE.
        grid: a name of :data:`mrdiff.names.GRIDS`, ``karras`` and ``power`` also
            with their rho (``"power(2)"``); the path of a ``.yaml`` file of ``mrdiff grid``;
            a function ``(process, nfe) -> times``; the times, or times by NFE.
        prediction: the clock: a polynomial of ``"data"`` in log-SNR, of ``"noise"`` in
            sigma/alpha or of ``"velocity"`` in arccos(alpha). Independent of what the network was
            trained to predict. The noise form amplifies errors by 1 / alpha near t = 1: at few
            calls it overshoots with the corrector and flies off with eta > 0 (a spread 100 times
            too large at 5 calls); it is there for theory and for many calls.
        corrector: use each prediction once more, to correct the state it was made at; costs no
            call and raises the order by one (UniC of Zhao et al. 2023, in this clock). Not with
            ``"noise"`` below about 20 calls, see there.
        temperature: scales the prior noise and, for eta > 0, that of the steps; >= 0. Towards 0
            the results crowd around one restoration: often higher PSNR, no variety.
        threshold: None, or the percentile in [0, 1] of
            :class:`mrdiff.solvers.threshold.ThresholdedDenoiser`.
        average: go on with the mean of all predictions of x0 so far. Meant for temperature 0, where
            all estimate one image (:class:`mrdiff.solvers.averaging.AveragedDenoiser`); above, what
            comes out lies between a draw and the mean of all draws.

    Raises:
        ValueError: for a value outside its range, or eta > 0 with the velocity.
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
        _check(nfe, order, eta, temperature, threshold)
        if isinstance(grid, os.PathLike):
            grid = os.fspath(grid)
        if isinstance(grid, str) and not is_grid_file(grid):
            named_grid(grid)  # an unknown name is known at once
        if prediction == "velocity" and eta > 0:
            raise ValueError(f"eta must be 0 with prediction='velocity', got {eta}")
        self._clock = Clock.named(prediction)
        self.nfe = nfe
        self.order = order
        self.eta = eta
        self.grid = grid
        self.prediction = prediction
        self.corrector = corrector
        self.temperature = temperature
        self.threshold = threshold
        self.average = average

    @staticmethod
    def preset(
        name: str, *, nfe: int, temperature: float | None = None
    ) -> MRSampler | BaselineSampler:
        """A named sampler: one of :data:`mrdiff.names.SAMPLERS`.

        ``mr-…`` are the paper's; ``fidelity`` and ``perceptual`` are the best found at each NFE
        for PSNR and for LPIPS and the distribution (:mod:`mrdiff.solvers.presets`).

        Args:
            name: of the sampler.
            nfe: number of network calls.
            temperature: instead of the preset's own.

        Raises:
            ValueError: for any other name, or nfe below 1.
        """
        if name not in SAMPLERS:
            raise ValueError(f"unknown sampler {name!r}: use one of {', '.join(SAMPLERS)}")
        own: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
        if name in BASELINES:
            return BaselineSampler.named(name, nfe=nfe, **own)
        options = chosen(name, nfe) if name in EVIDENCE else PAPER[name]
        return MRSampler(nfe=nfe, **{**options, **own})

    def options(self) -> dict[str, Any]:
        """The arguments that make an equal sampler."""
        names = inspect.signature(type(self)).parameters
        return {name: getattr(self, name) for name in names}

    def times(self, process: MRProcess) -> Tensor:
        """The grid: float64 ``[nfe + 1]``, from 1 down to 0."""
        return make_times(self.grid, process, self.nfe)

    def __call__(
        self,
        denoiser: DenoiserLike,
        mu: Tensor,
        noise: Noise = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """Restore a batch.

        Args:
            denoiser: ``(x, t, mu) -> Prediction`` with ``.process``.
            mu: degraded images ``[B, C, H, W]`` in [0, 1].
            noise: None, a ``torch.Generator``, or ``(step, shape) -> N(0, 1)``; step 0 is the
                prior.
            callback: ``(step, t, x, prediction)`` after each network call.

        Returns:
            x0 ``[B, C, H, W]``, not clamped; float32 or wider.
        """
        mu = mu.to(torch.promote_types(mu.dtype, torch.float32))
        times = self.times(denoiser.process)
        denoiser = prepared(denoiser, mu, times[:-1])
        if self.threshold is not None:
            denoiser = ThresholdedDenoiser(denoiser, self.threshold)
        if self.average:
            denoiser = AveragedDenoiser(denoiser)
        predict = ImageDenoiser(denoiser, mu, callback)
        return self._solve(predict, times, Draw(noise, mu, self.temperature))

    def _solve(self, predict: ImageDenoiser, times: Tensor, noise: Draw) -> Tensor:
        """The steps, in image coordinates: one tensor a step is made, the rest is added to it."""
        process, mu = predict.process, predict.mu
        steps = plan_steps(process, times[:-1], order=self.order, eta=self.eta, clock=self._clock)
        x = process.prior(mu, noise(0))
        history: list[Tensor] = []  # what the clock makes a polynomial of, the newest first
        base = x  # the last step without its predictions and mu
        last: Step | None = None  # that step, while its correction is to come
        for i, step in enumerate(steps, start=1):
            quantity = step.quantity(predict(x, step.s))
            if last is not None:
                x = base.add_(mu, alpha=last.corrector_mu)
                x = _add(x, last.corrector, [quantity, *history])
            history = [quantity, *history[: self.order - 1]]
            base = torch.mul(x, step.keep)
            if step.noise:
                base.add_(noise(i), alpha=step.noise)
            if self.corrector:
                last = step
            x = base.clone() if self.corrector else base
            x = _add(x.add_(mu, alpha=step.mu), step.weights, history)
        # At t = 0 sigma is 0 and the state is the prediction, never an extrapolation.
        return predict(x, float(times[-2])).x0


def _check(nfe: int, order: int, eta: float, temperature: float, threshold: float | None) -> None:
    if nfe < 1:
        raise ValueError(f"nfe must be at least 1, got {nfe}")
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order must be 1, 2, 3 or 4, got {order}")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must not be negative, got {temperature}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in [0, 1], got {threshold}")


def _add(total: Tensor, weights: Sequence[float], quantities: Sequence[Tensor]) -> Tensor:
    """total += ∑ weights[j] quantities[j]; there may be more of the (older) quantities."""
    for weight, quantity in zip(weights, quantities, strict=False):
        total.add_(quantity, alpha=weight)
    return total


named_sampler = MRSampler.preset
