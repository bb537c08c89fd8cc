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
from torch import Tensor

from datamodules.degradations.base import (
    BatchDegradation,
    Degradation,
    Degraded,
    parameter,
    to_8_bit,
)
from datamodules.degradations.compose import OneOf
from datamodules.degradations.packing import Draws, Shape, per_image
from datamodules.degradations.white_noise import normal_field
from datamodules.randomness import new_seed, uniform

_REACH = 3  # pixels that the grain's filter reaches: 2 standard deviations of the coarsest


def coloured(planes: Tensor, grain: Tensor, shared: Tensor) -> Tensor:
    """Normal noise ``[B, C, H, W]`` of unit variance, made of white noise.

    Args:
        planes: white noise, ``[B, C + 1, H + 2 R, W + 2 R]``, R being ``_REACH``.
        grain: ``[B]``, the standard deviation in pixels of the Gaussian that smooths it.
        shared: ``[B]``, the correlation of any two channels.
    """
    shared = per_image(shared)
    noise = planes[:, :-1] * (1 - shared).sqrt() + planes[:, -1:] * shared.sqrt()
    step = torch.arange(-_REACH, _REACH + 1, device=planes.device)
    taps = torch.exp(-0.5 * (step / grain.clamp(min=1e-3)[:, None]).square())
    taps = taps / taps.square().sum(1, keepdim=True).sqrt()  # a sum of white noise adds variances
    first, *others = (per_image(tap) for tap in taps.unbind(1))
    for axis in (2, 3):
        length = noise.shape[axis] - 2 * _REACH
        smooth = noise.narrow(axis, 0, length) * first
        for start, tap in enumerate(others, 1):
            smooth.addcmul_(noise.narrow(axis, start, length), tap)
        noise = smooth
    return noise


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianNoise(BatchDegradation):
    """White Gaussian noise, of one strength for all channels or of one for each.

    Args:
        sigma: standard deviation in levels of 1/255, drawn uniformly; (0, 0) adds nothing.
        per_channel: draw one for each channel.
    """

    sigma: tuple[float, float] = parameter((5.0, 50.0), within=(0, 255))
    per_channel: bool = False

    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        low, high = self.sigma
        chance = torch.rand(1, shape[0] if self.per_channel else 1, generator=generator)
        return {"sigma": (low + (high - low) * chance) / 255, "seed": new_seed(generator)}

    def apply(self, images: Tensor, draws: Draws) -> Degraded:
        noise = normal_field(draws["seed"], images.shape[1:]).mul_(per_image(draws["sigma"]))
        return Degraded(to_8_bit(images + noise))


def _variance(bounds: tuple[float, float], draws: int, generator: torch.Generator) -> Tensor:
    """``[1, draws]`` in ``bounds``, uniform in the fourth root: weak noise is frequent as it is
    with a logarithm, which has no 0.
    """
    low, high = (math.sqrt(math.sqrt(bound)) for bound in bounds)
    return (low + (high - low) * torch.rand(1, draws, generator=generator)).pow(4)


@dataclass(frozen=True, kw_only=True, eq=False)
class PoissonGaussianNoise(BatchDegradation):
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

    a: tuple[float, float] = parameter((2e-6, 0.012), within=(0, 1))
    b: tuple[float, float] = parameter((0.0, 1e-3), within=(0, 1))
    per_channel: bool = False
    grain: tuple[float, float] = parameter((0.0, 1.0), within=(0, _REACH / 2))
    shared: tuple[float, float] = parameter((0.0, 0.95), within=(0, 1))

    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        draws = shape[0] if self.per_channel else 1
        return {
            "a": _variance(self.a, draws, generator),
            "b": _variance(self.b, draws, generator),
            "grain": uniform(*self.grain, generator),
            "shared": uniform(*self.shared, generator),
            "seed": new_seed(generator),
        }

    def apply(self, images: Tensor, draws: Draws) -> Degraded:
        _, channels, height, width = images.shape
        size = channels + 1, height + 2 * _REACH, width + 2 * _REACH
        noise = coloured(normal_field(draws["seed"], size), draws["grain"], draws["shared"])
        deviation = (per_image(draws["a"]) * images).add_(per_image(draws["b"])).sqrt_()
        return Degraded(to_8_bit(torch.addcmul(images, deviation, noise.to(images.dtype))))


class Noise(OneOf):
    """What blind denoising learns from: one of three noises for every image.

    ``weights`` are those of white noise of one strength, of one a channel, and of a camera's noise;
    the rest is as in :class:`GaussianNoise` and :class:`PoissonGaussianNoise`.
    """

    def __init__(
        self,
        *,
        weights: tuple[float, float, float] = (0.4, 0.2, 0.4),
        sigma: tuple[float, float] = (5.0, 50.0),
        a: tuple[float, float] = (2e-6, 0.012),
        b: tuple[float, float] = (0.0, 1e-3),
        grain: tuple[float, float] = (0.0, 1.0),
        shared: tuple[float, float] = (0.0, 0.95),
    ) -> None:
        kinds: list[Degradation] = [
            GaussianNoise(sigma=sigma),
            GaussianNoise(sigma=sigma, per_channel=True),
            PoissonGaussianNoise(a=a, b=b, grain=grain, shared=shared),
        ]
        super().__init__(kinds, weights=list(weights))
