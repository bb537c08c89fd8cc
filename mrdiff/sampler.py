"""MR Sampler: one exponential-integrator multistep solver of any order and stochasticity.

With r = y / alpha, lambda the log-SNR, kappa = 1 + eta² and h = lambda_t - lambda_s > 0, the
exact step of the reverse SDE (eta = 1), the probability-flow ODE (eta = 0) and all in between is

    r_t = e^(-kappa h) r_s + ∫_0^h kappa e^(-kappa (h - u)) y0(lambda_s + u) du
          + (sigma_t / alpha_t) sqrt(1 - e^(-2 eta² h)) z .

The solver replaces y0(·) by the polynomial through the last ``order`` predictions. For eta = 1
and order 2 this is SDE-2 of the MR Sampler paper (ICLR 2025), for eta = 0 its ODE-1 and ODE-2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mrdiff.baselines import BASELINE_NAMES, BaselineSampler
from mrdiff.denoiser import DenoiserLike
from mrdiff.noise import Noise
from mrdiff.process import MRProcess
from mrdiff.residual import Draw, ResidualDenoiser, StepCallback, integrate
from mrdiff.timegrid import TimeGrid, make_times

_QUADRATURE = np.polynomial.legendre.leggauss(32)


def _moments(z: float, count: int) -> np.ndarray:
    """M_k = ∫_0^1 z e^(-z (1 - v)) v^k dv for k < count, with z = kappa h > 0.

    The recursion M_k = 1 - (k / z) M_(k-1) loses digits for small z, where quadrature is exact.
    """
    if z < 8:
        nodes, weights = 0.5 * (_QUADRATURE[0] + 1), 0.5 * _QUADRATURE[1]
        kernel = weights * z * np.exp(-z * (1 - nodes))
        return np.array([np.sum(kernel * nodes**k) for k in range(count)])
    moments = [-math.expm1(-z)]
    for k in range(1, count):
        moments.append(1 - k / z * moments[-1])
    return np.array(moments)


def multistep_weights(nodes: Sequence[float], h: float, kappa: float) -> np.ndarray:
    """Weights w_j with ∑ w_j f(u_j) = ∫_0^h kappa e^(-kappa (h - u)) f(u) du for polynomials.

    Args:
        nodes: distinct offsets u_j of the known predictions from lambda_s; 0 is the newest.
        h: the step in log-SNR; > 0.
        kappa: 1 + eta².

    Returns:
        One weight per node, exact for polynomials of degree below ``len(nodes)``.
    """
    powers = np.arange(len(nodes))
    vandermonde = (np.asarray(nodes)[None, :] / h) ** powers[:, None]
    return np.linalg.solve(vandermonde, _moments(kappa * h, len(nodes)))


class Step(NamedTuple):
    """Coefficients of y_t = keep y_s + ∑_j weights[j] y0_j + noise z, newest y0 first.

    ``corrector`` are the weights when the prediction at the new point is known too, and first.
    """

    t: float
    keep: float
    weights: tuple[float, ...]
    noise: float
    corrector: tuple[float, ...]


def plan_steps(process: MRProcess, times: Tensor, *, order: int, eta: float) -> list[Step]:
    """All coefficients of a run, in float64; they depend on the grid alone.

    The order grows by one a step up to ``order``; the step to t = 0 returns the prediction.
    """
    alpha, sigma = process.alpha(times).tolist(), process.sigma(times).tolist()
    lam = process.log_snr(times).tolist()
    steps = []
    for i, (t, s) in enumerate(itertools.pairwise(times.tolist())):
        if s == 0:
            steps.append(Step(t, 0.0, (1.0,), 0.0, ()))
            continue
        h = lam[i + 1] - lam[i]
        nodes = [lam[j] - lam[i] for j in range(i, max(-1, i - order), -1)]
        weights = alpha[i + 1] * multistep_weights(nodes, h, 1 + eta**2)
        corrector = alpha[i + 1] * multistep_weights([h, *nodes], h, 1 + eta**2)
        # (alpha_t / alpha_s) e^(-kappa h), with e^(-h) = alpha_s sigma_t / (sigma_s alpha_t)
        keep = sigma[i + 1] / sigma[i] * math.exp(-(eta**2) * h)
        noise = sigma[i + 1] * math.sqrt(-math.expm1(-2 * eta**2 * h))
        steps.append(Step(t, keep, tuple(weights.tolist()), noise, tuple(corrector.tolist())))
    return steps


class MRSampler:
    """Multistep sampler of mean-reverting diffusion.

    Args:
        nfe: exact number of network calls; 1 returns the network's x0 at t = 1.
        order: 1 to 4, the number of predictions that the polynomial goes through.
        eta: stochasticity in [0, 1]: 0 the probability-flow ODE, 1 the reverse SDE.
        grid: ``"uniform_log_snr"``, ``"uniform_t"``, ``"karras"``, a function
            ``(process, nfe) -> times`` or the times themselves.
        prediction: the clock in which the polynomial is integrated.
        corrector: use each prediction once more, to correct the state it was made at; costs no
            call and raises the order by one (UniC of Zhao et al. 2023, in this clock).
        temperature: scales the prior noise; >= 0.

    Raises:
        ValueError: for a value outside its range.
    """

    def __init__(
        self,
        *,
        nfe: int = 5,
        order: int = 2,
        eta: float = 0.0,
        grid: str | TimeGrid | Tensor | Sequence[float] = "uniform_log_snr",
        prediction: Literal["data"] = "data",
        corrector: bool = False,
        temperature: float = 1.0,
    ) -> None:
        if nfe < 1:
            raise ValueError(f"nfe must be at least 1, got {nfe}")
        if order not in (1, 2, 3, 4):
            raise ValueError(f"order must be 1, 2, 3 or 4, got {order}")
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {eta}")
        if temperature < 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        if prediction != "data":
            raise ValueError(f"the only prediction clock is 'data', got {prediction!r}")
        self.nfe = nfe
        self.order = order
        self.eta = eta
        self.grid = grid
        self.prediction = prediction
        self.corrector = corrector
        self.temperature = temperature

    @staticmethod
    def preset(name: str, *, nfe: int) -> MRSampler | BaselineSampler:
        """A named sampler: one of :data:`SAMPLER_NAMES`.

        Raises:
            ValueError: for any other name, or nfe below 1.
        """
        if name in _PRESETS:
            order, eta = _PRESETS[name]
            return MRSampler(nfe=nfe, order=order, eta=eta)
        if name in BASELINE_NAMES:
            return BaselineSampler.named(name, nfe=nfe)
        raise ValueError(f"unknown sampler {name!r}: use one of {', '.join(SAMPLER_NAMES)}")

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
        steps = plan_steps(denoiser.process, times, order=self.order, eta=self.eta)
        history: list[Tensor] = []  # predictions, the newest first
        base = y  # the last step without its predictions
        for i, step in enumerate(steps):
            y0 = denoiser(y, step.t).y0
            if self.corrector and i > 0:
                y = _add(base, steps[i - 1].corrector, [y0, *history])
            history = [y0, *history[: self.order - 1]]
            base = step.keep * y
            if step.noise:
                base = torch.add(base, noise(i + 1), alpha=step.noise)
            y = _add(base, step.weights, history)
        return y


def _add(base: Tensor, weights: Sequence[float], predictions: Sequence[Tensor]) -> Tensor:
    """base + ∑ weights[j] predictions[j]; older predictions than there are weights are not used."""
    for weight, y0 in zip(weights, predictions, strict=False):
        base = torch.add(base, y0, alpha=weight)
    return base


_PRESETS = {  # name: (order, eta)
    "mr-ode-1": (1, 0.0),
    "mr-ode-2": (2, 0.0),
    "mr-ode-3": (3, 0.0),
    "mr-sde-1": (1, 1.0),
    "mr-sde-2": (2, 1.0),
}
SAMPLER_NAMES = (*_PRESETS, *BASELINE_NAMES)
named_sampler = MRSampler.preset
