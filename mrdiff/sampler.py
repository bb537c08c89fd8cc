"""MR Sampler: one exponential-integrator multistep solver of any order, clock and stochasticity.

With r = y / alpha, lambda the log-SNR, kappa = 1 + eta² and h = lambda_t - lambda_s > 0, the
exact step of the reverse SDE (eta = 1), the probability-flow ODE (eta = 0) and all in between is

    r_t = e^(-kappa h) r_s + ∫_0^h kappa e^(-kappa (h - u)) y0(lambda_s + u) du
          + (sigma_t / alpha_t) sqrt(1 - e^(-2 eta² h)) z .

The solver replaces y0(·) by the polynomial through the last ``order`` predictions; with another
clock (:mod:`mrdiff.clock`) the same is done to eps or to the velocity. For eta = 1 and order 2
this is SDE-2 of the MR Sampler paper (ICLR 2025), for eta = 0 its ODE-1 and ODE-2.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mrdiff.baselines import BASELINE_NAMES, BaselineSampler
from mrdiff.clock import Clock, ClockName, points
from mrdiff.denoiser import DenoiserLike
from mrdiff.gridfile import is_grid_file
from mrdiff.noise import Noise
from mrdiff.presets import EVIDENCE, PAPER, chosen
from mrdiff.process import MRProcess
from mrdiff.residual import Draw, Residual, ResidualDenoiser, StepCallback, integrate
from mrdiff.threshold import ThresholdedDenoiser
from mrdiff.timegrid import Grid, make_times, named_grid

_QUADRATURE = np.polynomial.legendre.leggauss(32)


def _moments(rate: float, count: int) -> np.ndarray:
    """M_k = ∫_0^1 e^(-rate (1 - v)) v^k dv for k < count, rate >= 0.

    The recursion M_k = (1 - k M_(k-1)) / rate loses digits for small rates, where quadrature is
    exact.
    """
    if rate < 8:
        nodes, weights = 0.5 * (_QUADRATURE[0] + 1), 0.5 * _QUADRATURE[1]
        kernel = weights * np.exp(-rate * (1 - nodes))
        return np.array([np.sum(kernel * nodes**k) for k in range(count)])
    moments = [-np.expm1(-rate) / rate]
    for k in range(1, count):
        moments.append((1 - k * moments[-1]) / rate)
    return np.array(moments)


def multistep_weights(nodes: Sequence[float], rate: float) -> np.ndarray:
    """Weights w_j with ∑ w_j f(v_j) = ∫_0^1 e^(-rate (1 - v)) f(v) dv for polynomials f.

    Args:
        nodes: distinct places v_j of the known predictions in units of the step, which goes from
            0 to 1: 0 is the newest, older ones are negative, 1 is the step's end.
        rate: of the kernel; >= 0.

    Returns:
        One weight per node, exact for polynomials of degree below ``len(nodes)``.
    """
    powers = np.arange(len(nodes))
    vandermonde = np.asarray(nodes)[None, :] ** powers[:, None]
    return np.linalg.solve(vandermonde, _moments(rate, len(nodes)))


class Step(NamedTuple):
    """Coefficients of y_t = keep y_s + ∑_j weights[j] f_j + noise z, the newest f first.

    f = a y0 + b eps is what the clock makes a polynomial of. ``corrector`` are the weights when
    f at the step's end is known too, and first.
    """

    s: float
    a: float
    b: float
    keep: float
    weights: tuple[float, ...]
    noise: float
    corrector: tuple[float, ...]

    def quantity(self, prediction: Residual) -> Tensor:
        """f of a prediction made at the step's start."""
        if self.b == 0:
            return prediction.y0 if self.a == 1 else self.a * prediction.y0
        if self.a == 0:
            return prediction.eps if self.b == 1 else self.b * prediction.eps
        return torch.add(self.b * prediction.eps, prediction.y0, alpha=self.a)


def plan_steps(
    process: MRProcess, times: Tensor, *, order: int, eta: float, clock: Clock
) -> list[Step]:
    """All coefficients of a run, in float64; they depend on the grid alone.

    The order grows by one a step up to ``order``.

    Args:
        process: of the states.
        times: decreasing float64 times, all above 0.
        order: of the polynomials, plus one.
        eta: stochasticity in [0, 1].
        clock: in which the polynomials are.
    """
    grid = points(process, times)
    reading = [clock.coordinate(point) for point in grid]
    a, b = (column.tolist() for column in clock.target.coefficients(process, times))
    steps = []
    for i, (s, t) in enumerate(itertools.pairwise(grid)):
        move = clock.transition(s, t, eta)
        length = reading[i + 1] - reading[i]
        known = range(i, max(-1, i - order), -1)
        nodes = [(reading[j] - reading[i]) / length for j in known]
        weights = move.gain * multistep_weights(nodes, move.rate)
        corrector = move.gain * multistep_weights([1.0, *nodes], move.rate)
        steps.append(
            Step(
                *(s.t, a[i], b[i], move.keep),
                *(tuple(weights.tolist()), move.noise, tuple(corrector.tolist())),
            )
        )
    return steps


class MRSampler:
    """Multistep sampler of mean-reverting diffusion.

    Args:
        nfe: exact number of network calls; 1 returns the network's x0 at t = 1.
        order: 1 to 4, the number of predictions that the polynomial goes through.
        eta: stochasticity in [0, 1]: 0 the probability-flow ODE, 1 the reverse SDE.
        grid: a name of :data:`mrdiff.timegrid.GRID_NAMES`, ``karras`` and ``power`` also with
            their rho (``"power(2)"``); the path of a ``.yaml`` file written by ``mrdiff grid``;
            a function ``(process, nfe) -> times``; the times, or times by NFE.
        prediction: the clock: a polynomial of ``"data"`` in log-SNR, of ``"noise"`` in
            sigma/alpha or of ``"velocity"`` in arccos(alpha). Independent of what the network was
            trained to predict.
        corrector: use each prediction once more, to correct the state it was made at; costs no
            call and raises the order by one (UniC of Zhao et al. 2023, in this clock).
        temperature: scales the prior noise and, for eta > 0, that of the steps; >= 0. Below 1 the
            samples crowd around the mean of the restorations: higher PSNR, less variety.
        threshold: None, or the percentile in [0, 1] of
            :class:`mrdiff.threshold.ThresholdedDenoiser`.

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
    ) -> None:
        _check(nfe, order, eta, temperature, threshold)
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

    @staticmethod
    def preset(
        name: str, *, nfe: int, temperature: float | None = None
    ) -> MRSampler | BaselineSampler:
        """A named sampler: one of :data:`SAMPLER_NAMES`.

        ``mr-…`` are the paper's; ``fidelity`` and ``perceptual`` are the best found at each NFE
        for PSNR and for LPIPS and the distribution (:mod:`mrdiff.presets`).

        Args:
            name: of the sampler.
            nfe: number of network calls.
            temperature: instead of the preset's own.

        Raises:
            ValueError: for any other name, or nfe below 1.
        """
        if name not in SAMPLER_NAMES:
            raise ValueError(f"unknown sampler {name!r}: use one of {', '.join(SAMPLER_NAMES)}")
        own: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
        if name in BASELINE_NAMES:
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
        if self.threshold is not None:
            denoiser = ThresholdedDenoiser(denoiser, self.threshold)
        return integrate(
            self._solve,
            denoiser,
            mu,
            self.times(denoiser.process),
            noise=noise,
            callback=callback,
            temperature=self.temperature,
        )

    def _solve(self, denoiser: ResidualDenoiser, y: Tensor, times: Tensor, noise: Draw) -> Tensor:
        steps = plan_steps(
            denoiser.process, times[:-1], order=self.order, eta=self.eta, clock=self._clock
        )
        history: list[Tensor] = []  # what the clock makes a polynomial of, the newest first
        base = y  # the last step without its predictions
        corrector: tuple[float, ...] = ()  # their weights once the new one is known
        for i, step in enumerate(steps, start=1):
            quantity = step.quantity(denoiser(y, step.s))
            if corrector:
                y = _add(base, corrector, [quantity, *history])
            history = [quantity, *history[: self.order - 1]]
            base = step.keep * y
            if step.noise:
                base = base.add_(noise(i), alpha=step.noise)
            y = _add(base, step.weights, history)
            corrector = step.corrector if self.corrector else ()
        # At t = 0 sigma is 0 and the state is the prediction, never an extrapolation.
        return denoiser(y, float(times[-2])).y0


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


def _add(base: Tensor, weights: Sequence[float], quantities: Sequence[Tensor]) -> Tensor:
    """base + ∑ weights[j] quantities[j]; there may be more of the (older) quantities."""
    total = torch.add(base, quantities[0], alpha=weights[0])
    for weight, quantity in zip(weights[1:], quantities[1:], strict=False):
        total.add_(quantity, alpha=weight)
    return total


SAMPLER_NAMES = (*PAPER, *EVIDENCE, *BASELINE_NAMES)
named_sampler = MRSampler.preset
