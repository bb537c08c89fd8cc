"""Time grids from the power spectrum of residuals alone, without a model.

Every frequency f of the residual y0 is taken for an independent zero-mean Gaussian of variance
S_f. Its optimal denoiser is linear,

    y0 = g y_t,   g = alpha S / (alpha² S + sigma²)      (Wiener)

and so is the solver: the result is a sum of the noises that it drew, each times a gain. Following
every noise by itself through the sampler gives the result's variance V_f exactly, and with it the
2-Wasserstein distance ∑_f w_f (sqrt(V_f) - sqrt(S_f))² between what comes out and what should.
For eta = 0 there is one gain, whose sign counts, and the distance is that to the exact solution
from the same noise. The temperature scales V and S alike and does not move the best times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import pack, rearrange
from torch import Tensor

from mrdiff.diffusion.path import GaussianPath, Time
from mrdiff.diffusion.prediction import Prediction
from mrdiff.solvers.sampler import MRSampler
from mrdiff.tuning.search import GREY_LEVELS, FoundGrid, Progress, grid_sampler, search_grids

_BINS = 256


@dataclass(frozen=True)
class Spectrum:
    """Power S ``[F]``, float64, > 0, in image units squared, and the share of each bin ``[F]``.

    White noise of standard deviation s has S = s² at every frequency. The shares sum to 1.
    """

    power: Tensor
    weight: Tensor

    def __post_init__(self) -> None:
        if self.power.ndim != 1 or self.power.shape != self.weight.shape:
            raise ValueError("power and weight of a spectrum are two [F] tensors")
        if not (self.power > 0).all() or abs(float(self.weight.sum()) - 1) > 1e-6:
            raise ValueError("the power of a spectrum is positive, and its weights sum to 1")


def white_spectrum(std: float) -> Spectrum:
    """White noise of standard deviation ``std``, as one bin."""
    one = torch.ones(1, dtype=torch.float64)
    return Spectrum(one * std**2, one)


def residual_spectrum(residuals: Sequence[Tensor], *, window: int = 64) -> Spectrum:
    """The power spectrum of clean minus degraded images ``[C, H, W]`` in image units.

    Welch's method: Hann-windowed squares of ``window`` pixels a side, half of each over the next,
    all channels together. The mean residual of each channel over all images, which any model
    learns, is taken off first. Frequencies are then pooled by their power, which alone counts here.

    Raises:
        ValueError: no residuals, one smaller than the window, or nothing but zeros.
    """
    if not residuals or any(min(r.shape[-2:]) < window for r in residuals):
        raise ValueError(f"a spectrum needs residuals of at least {window} x {window} pixels")
    flat, _ = pack([r.double() for r in residuals], "c *")
    mean = rearrange(flat.mean(dim=1), "c -> c 1 1")
    hann = torch.hann_window(window, dtype=torch.float64)
    taper = torch.outer(hann, hann)
    total, count = torch.zeros(window, window, dtype=torch.float64), 0
    for residual in residuals:
        centred = residual.double() - mean
        patches = centred.unfold(1, window, window // 2).unfold(2, window, window // 2)
        patches = rearrange(patches, "c rows columns h w -> (c rows columns) h w")
        total += torch.fft.fft2(patches * taper).abs().square().sum(dim=0)
        count += len(patches)
    # Parseval: E|FFT(taper n)|² = s² ∑ taper² for white noise n.
    return _pooled(total / (count * taper.square().sum()))


def _pooled(power: Tensor) -> Spectrum:
    """Neighbours in the order of their power as one bin each."""
    ordered = power.flatten().sort().values
    if not ordered[-1] > 0:
        raise ValueError("the residuals are zero everywhere: they have no spectrum")
    bins = ordered.clamp_min(1e-9 * float(ordered[-1])).tensor_split(_BINS)
    bins = tuple(part for part in bins if len(part))
    means = torch.stack([part.mean() for part in bins])
    weights = torch.tensor([len(part) / len(ordered) for part in bins], dtype=torch.float64)
    return Spectrum(means, weights)


class SpectrumDenoiser:
    """The exact denoiser of Gaussian residuals of power S ``[F]``; states are ``[B, 1, 1, F]``."""

    def __init__(self, process: GaussianPath, power: Tensor) -> None:
        self.process, self.power = process, power

    def __call__(self, x: Tensor, t: Time, mu: Tensor) -> Prediction:
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        y = x - mu
        y0 = alpha * self.power / (alpha**2 * self.power + sigma**2) * y
        return Prediction(mu + y0, (y - alpha * y0) / sigma)


def _one_each(step: int, shape: Sequence[int]) -> Tensor:
    """Noise of which step i is 1 in row i and else 0, so that rows are gains."""
    noise = torch.zeros(*shape, dtype=torch.float64)
    noise[step] = 1.0
    return noise


def gains(sampler: MRSampler, process: GaussianPath, spectrum: Spectrum) -> Tensor:
    """What each noise that the sampler draws is multiplied with in its result, float64.

    ``[noises, F]``: the prior's first, then that of each step; an ODE has one row.
    """
    rows = sampler.nfe if sampler.eta > 0 else 1
    zero = torch.zeros(rows, 1, 1, len(spectrum.power), dtype=torch.float64)
    denoiser = SpectrumDenoiser(process, spectrum.power)
    return sampler(denoiser, zero, noise=_one_each)[:, 0, 0]


def spectrum_error(sampler: MRSampler, process: GaussianPath, spectrum: Spectrum) -> float:
    """sqrt(∑_f w_f (sqrt(V_f) - sqrt(S_f))²) of a sampler of temperature 1, in grey levels."""
    gain = gains(sampler, process, spectrum)
    spread = gain.square().sum(0).sqrt() if sampler.eta > 0 else gain[0]
    gap = (spread - spectrum.power.sqrt()).square()
    return GREY_LEVELS * math.sqrt(float((spectrum.weight * gap).sum()))


def search_spectrum(
    process: GaussianPath,
    spectrum: Spectrum,
    nfes: Sequence[int],
    *,
    options: Mapping[str, Any] | None = None,
    evaluations: int | None = None,
    progress: Progress | None = None,
) -> dict[int, FoundGrid]:
    """The times with the least :func:`spectrum_error` for each NFE >= 2; seconds on a CPU.

    ``options`` are those of :func:`mrdiff.make_sampler` but for ``nfe`` and ``grid``; temperature
    and threshold have no part in it. The others are as for :func:`.search_times`.
    """
    linear = {**(options or {}), "temperature": 1.0, "threshold": None}

    def value(times: Tensor) -> float:
        return spectrum_error(grid_sampler(linear, len(times) - 1, times), process, spectrum)

    search = {"starts": 3, "evaluations": evaluations, "progress": progress}
    return search_grids(value, process, nfes, **search)
