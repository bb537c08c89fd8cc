"""Time grids from the power spectrum of residuals alone, without a model.

Every frequency f of the residual y0 is taken for an independent zero-mean Gaussian of variance
S_f. Its optimal denoiser is linear,

    y0 = g y_t,   g = alpha S / (alpha² S + sigma²)      (Wiener)

and so is the solver: the result is a sum of the noises that it drew, each times a gain. Following
every noise by itself through the sampler gives the result's variance V_f exactly, and with it the
2-Wasserstein distance ∑_f w_f (sqrt(V_f) - sqrt(S_f))² between what comes out and what should.
For eta = 0 there is one gain, whose sign counts, and the distance is that to the exact solution
from the same noise (but for the prior's own, tiny, error). The temperature scales V and S alike
and does not move the best times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import Prediction
from mrdiff.diffusion.process import MRProcess
from mrdiff.solvers.sampler import MRSampler
from mrdiff.tuning.search import GREY_LEVELS, FoundGrid, Progress, search_grids

_BINS = 256


@dataclass(frozen=True)
class Spectrum:
    """Power by frequency.

    Attributes:
        power: S ``[F]``, float64, > 0, in image units squared: white noise of standard deviation
            s has S = s² at every frequency.
        weight: share of the frequencies in each bin ``[F]``; they sum to 1.
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
    """The power spectrum of clean minus degraded images (Welch's method).

    Hann-windowed squares, half of each over the next, all channels together. The mean residual of
    each channel over all images, which any model learns, is taken off first: the power at
    frequency 0 is what varies from place to place. Frequencies are then pooled by their power,
    the one thing that counts here.

    Args:
        residuals: images ``[C, H, W]`` in image units, of any sizes.
        window: side of the squares in pixels; no image may be smaller.

    Raises:
        ValueError: no residuals, a smaller one, or nothing but zeros.
    """
    if not residuals or any(min(r.shape[-2:]) < window for r in residuals):
        raise ValueError(f"a spectrum needs residuals of at least {window} x {window} pixels")
    flat = torch.cat([r.double().flatten(1) for r in residuals], dim=1)
    mean = flat.mean(dim=1)[:, None, None]
    hann = torch.hann_window(window, dtype=torch.float64)
    taper = hann[:, None] * hann[None, :]
    total, count = torch.zeros(window, window, dtype=torch.float64), 0
    for residual in residuals:
        centred = residual.double() - mean
        patches = centred.unfold(1, window, window // 2).unfold(2, window, window // 2)
        power = torch.fft.fft2(patches * taper).abs().square()  # [C, rows, columns, window, window]
        total += power.sum(dim=(0, 1, 2))
        count += math.prod(power.shape[:3])
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
    """The exact denoiser of Gaussian residuals with this power in the last dimension.

    Args:
        process: of the states.
        power: S ``[F]``; states are ``[B, 1, 1, F]``.
    """

    def __init__(self, process: MRProcess, power: Tensor) -> None:
        self.process = process
        self.power = power

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        y = x - mu
        y0 = alpha * self.power / (alpha**2 * self.power + sigma**2) * y
        return Prediction(mu + y0, (y - alpha * y0) / sigma)


def _one_each(step: int, shape: Sequence[int]) -> Tensor:
    """Noise of which step i has a 1 in row i and else nothing, so that rows are gains."""
    noise = torch.zeros(*shape, dtype=torch.float64)
    noise[step] = 1.0
    return noise


def gains(sampler: MRSampler, process: MRProcess, spectrum: Spectrum) -> Tensor:
    """What each noise that the sampler draws is multiplied with in its result.

    Returns:
        ``[noises, F]``, float64: the prior's first, then that of each step; an ODE has one row.
    """
    rows = sampler.nfe if sampler.eta > 0 else 1
    zero = torch.zeros(rows, 1, 1, len(spectrum.power), dtype=torch.float64)
    denoiser = SpectrumDenoiser(process, spectrum.power)
    return sampler(denoiser, zero, noise=_one_each)[:, 0, 0]


def spectrum_error(sampler: MRSampler, process: MRProcess, spectrum: Spectrum) -> float:
    """sqrt(∑_f w_f (sqrt(V_f) - sqrt(S_f))²) of a sampler of temperature 1, in grey levels."""
    gain = gains(sampler, process, spectrum)
    spread = gain.square().sum(0).sqrt() if sampler.eta > 0 else gain[0]
    gap = (spread - spectrum.power.sqrt()).square()
    return GREY_LEVELS * math.sqrt(float((spectrum.weight * gap).sum()))


def search_spectrum(
    process: MRProcess,
    spectrum: Spectrum,
    nfes: Sequence[int],
    *,
    options: Mapping[str, Any] | None = None,
    evaluations: int | None = None,
    progress: Progress | None = None,
) -> dict[int, FoundGrid]:
    """The times with the least :func:`spectrum_error` for each NFE; seconds on a CPU.

    Args:
        process: of the model that the times are for.
        spectrum: of the residuals.
        nfes: each >= 2.
        options: of :class:`mrdiff.MRSampler`, but for ``nfe`` and ``grid``; temperature and
            threshold have no part in it.
        evaluations: as for :func:`mrdiff.tuning.search.search_times`.
        progress: as there.
    """
    linear = {"temperature": 1.0, "threshold": None}

    def value(times: Tensor) -> float:
        grid = {"nfe": len(times) - 1, "grid": times}
        return spectrum_error(MRSampler(**{**(options or {}), **linear, **grid}), process, spectrum)

    search = {"starts": 3, "evaluations": evaluations, "progress": progress}
    return search_grids(value, process, nfes, **search)
