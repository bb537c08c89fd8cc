"""Noise: white Gaussian, and the signal-dependent noise of a camera.

Blind Gaussian denoising draws one standard deviation an image (Zhang et al., "Beyond a Gaussian
Denoiser", IEEE TIP 2017). The noise of a sensor has a variance ``a x + b``: photons and read-out
(Foi et al., "Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image Raw-Data",
IEEE TIP 2008). In a finished photograph it is no longer white: demosaicing and filtering smooth it
and colour conversion mixes the channels (Nam et al., "A Holistic Approach to Cross-Channel Image
Noise Modeling", CVPR 2016), hence ``grain`` and ``shared``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from kornia.filters import filter2d_separable
from torch import Tensor

from datamodules.degradations.base import Degradation, check_weights, parameter, to_8_bit
from datamodules.randomness import uniform

_REACH = 3  # pixels that the grain's filter reaches: 2 standard deviations of the coarsest


def _normal(shape: torch.Size, grain: float, shared: float, generator: torch.Generator) -> Tensor:
    """Normal noise ``[C, H, W]`` of unit variance: ``grain`` is the standard deviation in pixels of
    the Gaussian that smooths it, ``shared`` the correlation of any two channels.
    """
    channels, height, width = shape
    if grain == 0 and shared == 0:
        return torch.randn(shape, generator=generator)
    margin = 2 * _REACH
    planes = torch.randn(channels + 1, height + margin, width + margin, generator=generator)
    planes = math.sqrt(1 - shared) * planes[:channels] + math.sqrt(shared) * planes[channels:]
    taps = torch.exp(-0.5 * (torch.arange(-_REACH, _REACH + 1) / max(grain, 1e-3)) ** 2)
    taps = (taps / taps.square().sum().sqrt())[None]  # a sum of white noise adds variances
    return filter2d_separable(planes[None], taps, taps, padding="valid")[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianNoise(Degradation):
    """White Gaussian noise, of one strength for all channels or of one for each.

    Args:
        sigma: standard deviation in levels of 1/255, drawn uniformly; (0, 0) adds nothing.
        per_channel: draw one for each channel.
    """

    sigma: tuple[float, float] = parameter((5.0, 50.0), within=(0, 255))
    per_channel: bool = False

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        draws = image.shape[0] if self.per_channel else 1
        low, high = self.sigma
        sigma = (low + (high - low) * torch.rand(draws, 1, 1, generator=generator)) / 255
        noise = sigma * torch.randn(image.shape, generator=generator)
        return to_8_bit(image + noise.to(image.dtype))


def _variance(bounds: tuple[float, float], draws: int, generator: torch.Generator) -> Tensor:
    """``[draws, 1, 1]`` in ``bounds``, uniform in the fourth root: weak noise is frequent as it is
    with a logarithm, which has no 0.
    """
    low, high = (math.sqrt(math.sqrt(bound)) for bound in bounds)
    return (low + (high - low) * torch.rand(draws, 1, 1, generator=generator)).pow(4)


@dataclass(frozen=True, kw_only=True, eq=False)
class PoissonGaussianNoise(Degradation):
    """Noise of variance ``a x + b`` where the image is x.

    The Poisson part is drawn by its normal approximation, as Foi et al. do: every pixel has exactly
    this variance whatever its correlation with others.

    Args:
        a: variance in image units that a signal of 1 adds; ``1 / a`` is its photons.
        b: variance in image units of the dark. Where a and b are (0, 0) nothing is added.
        per_channel: draw a and b for each channel.
        grain: standard deviation in pixels of the smoothing that the noise underwent, 0 for white.
        shared: correlation of the noise between channels.
    """

    a: tuple[float, float] = parameter((2e-5, 0.012), within=(0, 1))
    b: tuple[float, float] = parameter((0.0, 1e-3), within=(0, 1))
    per_channel: bool = False
    grain: tuple[float, float] = parameter((0.0, 1.0), within=(0, _REACH / 2))
    shared: tuple[float, float] = parameter((0.0, 0.8), within=(0, 1))

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        draws = image.shape[0] if self.per_channel else 1
        a, b = _variance(self.a, draws, generator), _variance(self.b, draws, generator)
        grain, shared = uniform(*self.grain, generator), uniform(*self.shared, generator)
        noise = _normal(image.shape, grain, shared, generator)
        return to_8_bit(image + ((a * image + b).sqrt() * noise).to(image.dtype))


@dataclass(frozen=True, kw_only=True, eq=False)
class Noise(Degradation):
    """What blind denoising learns from: one of three noises for every image.

    ``weights`` are those of white noise of one strength, of one a channel, and of a camera's noise;
    the rest is as in :class:`GaussianNoise` and :class:`PoissonGaussianNoise`.
    """

    weights: tuple[float, float, float] = (0.4, 0.2, 0.4)
    sigma: tuple[float, float] = (5.0, 50.0)
    a: tuple[float, float] = (2e-5, 0.012)
    b: tuple[float, float] = (0.0, 1e-3)
    grain: tuple[float, float] = (0.0, 1.0)
    shared: tuple[float, float] = (0.0, 0.8)

    def __post_init__(self) -> None:
        check_weights("weights", self.weights)
        self._kinds()  # which check their ranges

    def _kinds(self) -> tuple[Degradation, ...]:
        return (
            GaussianNoise(sigma=self.sigma),
            GaussianNoise(sigma=self.sigma, per_channel=True),
            PoissonGaussianNoise(a=self.a, b=self.b, grain=self.grain, shared=self.shared),
        )

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        kind = int(torch.multinomial(torch.tensor(self.weights), 1, generator=generator))
        return self._kinds()[kind].degrade(image, generator)
