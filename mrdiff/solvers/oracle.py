"""Closed-form denoisers: problems with a known answer, for testing solvers.

Where every pixel's residual y0 is an independent draw of a Gaussian or of a 1-D Gaussian mixture,
Bayes' rule gives the perfect denoiser. The probability-flow ODE is the monotone map that carries
each marginal into the next, so with F_t the distribution function of y_t it ends at

    y_0 = F_0^-1(F_1(y_1)).

Lowering the temperature of a sampler scales y_1, and so, with eta = 0, the result's standard
deviation for Gaussian data. For a mixture it draws all results towards F_0^-1(F_1(0)), nearly the
median of the data: at 0 all modes but the one around it are lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mrdiff.diffusion.path import GaussianPath, Time, expand_like
from mrdiff.diffusion.prediction import Prediction

_HALVINGS = 120  # until no float64 lies between the bounds


def _marginal(process: GaussianPath, t: Time, image: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma at ``t`` in the dtype of ``image``, broadcastable over it."""
    wide = t.cpu().double() if isinstance(t, Tensor) else t  # not every device has float64
    alpha, sigma = process.alpha(wide).to(image), process.sigma(wide).to(image)
    return expand_like(alpha, image), expand_like(sigma, image)


@dataclass
class GaussianOracle:
    """The exact denoiser where the residual y0 is N(mean, std²), image units, in every pixel."""

    process: GaussianPath
    mean: float = 0.3
    std: float = 0.15
    calls: int = 0

    def __call__(self, x: Tensor, t: Time, mu: Tensor) -> Prediction:
        """E[x0 | x] and E[eps | x] of images of any shape; t in (0, 1], a float or ``[B]``."""
        self.calls += 1
        alpha, sigma = _marginal(self.process, t, x)
        variance = alpha**2 * self.std**2 + sigma**2
        off = x - self.process.centred(mu, t) - alpha * self.mean
        y0 = self.mean + alpha * self.std**2 / variance * off
        return Prediction(mu + y0, sigma / variance * off)

    def flow_end(self, y1: Tensor) -> Tensor:
        """Where the probability-flow ODE carries y_1: the standardized state is constant."""
        alpha, sigma = _marginal(self.process, 1.0, y1)
        spread = torch.sqrt(alpha**2 * self.std**2 + sigma**2)
        return self.mean + self.std * (y1 - alpha * self.mean) / spread

    def quantile(self, u: Tensor) -> Tensor:
        """Where the residual's distribution function is ``u`` in [0, 1]; float64."""
        return self.mean + self.std * torch.special.ndtri(u.double())


@dataclass
class MixtureOracle:
    """The exact denoiser where every pixel's y0 is a draw of a 1-D Gaussian mixture.

    Means and stds > 0 are in image units; weights > 0 are scaled to the sum 1.
    """

    process: GaussianPath
    means: Sequence[float]
    stds: Sequence[float]
    weights: Sequence[float]
    calls: int = 0

    def __post_init__(self) -> None:
        if not len(self.means) == len(self.stds) == len(self.weights) > 0:
            raise ValueError("a mixture has as many means as stds and weights, at least one")
        if min(self.stds) <= 0 or min(self.weights) <= 0:
            raise ValueError("stds and weights of a mixture must be positive")
        total = sum(self.weights)
        self.weights = [weight / total for weight in self.weights]

    def _components(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """means, stds, weights ``[K]``, in dtype and on the device of ``like``."""
        numbers = (self.means, self.stds, self.weights)
        means, stds, weights = (torch.tensor(n, dtype=torch.float64) for n in numbers)
        return means.to(like), stds.to(like), weights.to(like)

    def __call__(self, x: Tensor, t: Time, mu: Tensor) -> Prediction:
        """E[x0 | x] and E[eps | x] of images of any shape; t in (0, 1], a float or ``[B]``."""
        self.calls += 1
        alpha, sigma = (c.unsqueeze(-1) for c in _marginal(self.process, t, x))
        means, stds, weights = self._components(x)
        variance = alpha**2 * stds**2 + sigma**2  # of y_t within a component: [..., K]
        off = (x - self.process.centred(mu, t)).unsqueeze(-1) - alpha * means
        log_joint = torch.log(weights) - 0.5 * (torch.log(variance) + off**2 / variance)
        share = torch.softmax(log_joint, dim=-1)  # p(component | y_t)
        y0 = (share * (means + alpha * stds**2 / variance * off)).sum(-1)
        # (y - alpha y0) / sigma without its cancellation near t = 0
        eps = (share * (sigma / variance * off)).sum(-1)
        return Prediction(mu + y0, eps)

    def cdf(self, y: Tensor, t: float = 0.0) -> Tensor:
        """P(y_t <= y), float64 of the shape of ``y``; 1 beyond 8 deviations above."""
        y = y.double()
        alpha, sigma = _marginal(self.process, t, y[..., None])
        means, stds, weights = self._components(y)
        spread = torch.sqrt(alpha**2 * stds**2 + sigma**2)
        z = (y[..., None] - alpha * means) / spread
        # erfc, because ndtr loses the lower tail beyond 8 deviations
        return (weights * 0.5 * torch.special.erfc(-z / math.sqrt(2))).sum(-1)

    def quantile(self, u: Tensor) -> Tensor:
        """The inverse of :meth:`cdf` at t = 0, float64 of the shape of ``u`` in [0, 1]."""
        u = u.double()
        means, stds, _ = self._components(u)
        # Where all components have passed u the mixture has, and where none has it has not.
        each = means + stds * torch.special.ndtri(u)[..., None]
        low, high = each.amin(-1), each.amax(-1)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            below = self.cdf(middle) < u
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)

    def flow_end(self, y1: Tensor) -> Tensor:
        """Where the probability-flow ODE carries y_1: F_0^-1(F_1(y_1)), float64."""
        return self.quantile(self.cdf(y1, 1.0))


def midpoints(count: int) -> Tensor:
    """(i + 1/2) / count for i < count, float64: the middles of equal parts of [0, 1]."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def wasserstein2(samples: Tensor, oracle: GaussianOracle | MixtureOracle) -> float:
    """2-Wasserstein distance between samples of the residual and their exact distribution.

    In one dimension the best transport is monotone: W2² = ∫_0^1 (G(u) - F^-1(u))² du, with G the
    quantile function of the n samples. On each of n equal parts of [0, 1], where G is the i-th
    sorted sample, F^-1 is taken at its middle: the result is the exact distance to the n midpoint
    quantiles, which are within O(1/sqrt(n)) of the distribution in W2. Unlike the distance to that
    it is 0 for a perfect flow from midpoint quantiles of the prior.
    """
    ordered = samples.double().flatten().sort().values
    exact = oracle.quantile(midpoints(ordered.numel()).to(ordered.device))
    return float(torch.sqrt(torch.mean((ordered - exact) ** 2)))


def stratified_prior(count: int) -> Callable[[int, Sequence[int]], Tensor]:
    """Noise ``(step, shape)`` of ``count`` pixels for samplers that only draw the prior.

    The normal quantiles at the midpoints, float64: W2 then has no Monte-Carlo noise.
    """
    normal = torch.special.ndtri(midpoints(count))
    return lambda step, shape: normal.reshape(*shape)
