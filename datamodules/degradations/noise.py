"""Noise: white Gaussian, and the signal-dependent noise of a camera.

Blind Gaussian denoising draws one standard deviation an image (Zhang et al., "Beyond a Gaussian
Denoiser: Residual Learning of Deep CNN for Image Denoising", IEEE TIP 2017). The noise of a
sensor has a variance that is affine in the signal, ``a x + b``: photons and read-out (Foi et al.,
"Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image Raw-Data", IEEE TIP
2008). That of a finished photograph is no longer white: demosaicing and filtering smooth it, and
colour conversion mixes the channels (Nam et al., "A Holistic Approach to Cross-Channel Image
Noise Modeling and its Application to Image Denoising", CVPR 2016), hence ``grain`` and ``shared``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from datamodules.degradations.base import Degradation, check_range, to_8_bit
from datamodules.randomness import uniform

_REACH = 3  # pixels that the grain's filter reaches: 2 standard deviations of the coarsest


def _normal(shape: torch.Size, grain: float, shared: float, generator: torch.Generator) -> Tensor:
    """Normal noise ``[C, H, W]`` of unit variance, alike between neighbours and channels.

    Args:
        shape: C, H and W.
        grain: standard deviation in pixels of the Gaussian that smooths it, 0 for white noise.
        shared: correlation of any two channels.
        generator: the source of randomness.
    """
    channels, height, width = shape
    if grain == 0 and shared == 0:
        return torch.randn(shape, generator=generator)
    margin = 2 * _REACH
    planes = torch.randn(channels + 1, height + margin, width + margin, generator=generator)
    planes = math.sqrt(1 - shared) * planes[:channels] + math.sqrt(shared) * planes[channels:]
    taps = [math.exp(-0.5 * (k / max(grain, 1e-3)) ** 2) for k in range(-_REACH, _REACH + 1)]
    power = math.sqrt(sum(tap**2 for tap in taps))  # a sum of white noise adds variances
    planes = torch.stack([t / power * planes[:, k : k + height] for k, t in enumerate(taps)]).sum(0)
    return torch.stack([t / power * planes[:, :, k : k + width] for k, t in enumerate(taps)]).sum(0)


class GaussianNoise(Degradation):
    """White Gaussian noise, of one strength for all channels or of one for each.

    Args:
        sigma: standard deviation in levels of 1/255, drawn uniformly; (0, 0) adds nothing.
        per_channel: draw one for each channel.

    Raises:
        ValueError: a range that does not rise or leaves its bounds.
    """

    def __init__(
        self, *, sigma: tuple[float, float] = (5.0, 50.0), per_channel: bool = False
    ) -> None:
        check_range("sigma", sigma, 0, 255)
        self.sigma = sigma
        self.per_channel = per_channel

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """See :meth:`Degradation.degrade`."""
        draws = image.shape[0] if self.per_channel else 1
        low, high = self.sigma
        sigma = (low + (high - low) * torch.rand(draws, 1, 1, generator=generator)) / 255
        noise = sigma * torch.randn(image.shape, generator=generator)
        return to_8_bit(image + noise.to(image.dtype))


def _variance(bounds: tuple[float, float], draws: int, generator: torch.Generator) -> Tensor:
    """``[draws, 1, 1]`` in ``bounds``, uniform in the fourth root.

    Ranges of variances span decades and may begin at 0, where no logarithm exists. The root keeps
    weak noise frequent all the same.
    """
    low, high = (math.sqrt(math.sqrt(bound)) for bound in bounds)
    return (low + (high - low) * torch.rand(draws, 1, 1, generator=generator)).pow(4)


class PoissonGaussianNoise(Degradation):
    """Noise of variance ``a x + b`` where the image is x.

    The Poisson part is drawn by its normal approximation, as Foi et al. do too: it gives every
    pixel exactly this variance whatever its correlation with others.

    Args:
        a: variance in image units that a signal of 1 adds; ``1 / a`` is its photons.
        b: variance in image units of the dark. Where a and b are (0, 0) nothing is added.
        per_channel: draw a and b for each channel.
        grain: standard deviation in pixels of the smoothing that the noise underwent, 0 for white.
        shared: correlation of the noise between channels.

    Raises:
        ValueError: a range that does not rise or leaves its bounds.
    """

    def __init__(
        self,
        *,
        a: tuple[float, float] = (2e-5, 0.012),
        b: tuple[float, float] = (0.0, 1e-3),
        per_channel: bool = False,
        grain: tuple[float, float] = (0.0, 1.0),
        shared: tuple[float, float] = (0.0, 0.8),
    ) -> None:
        check_range("a", a, 0, 1)
        check_range("b", b, 0, 1)
        check_range("grain", grain, 0, _REACH / 2)
        check_range("shared", shared, 0, 1)
        self.a = a
        self.b = b
        self.per_channel = per_channel
        self.grain = grain
        self.shared = shared

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """See :meth:`Degradation.degrade`."""
        draws = image.shape[0] if self.per_channel else 1
        a, b = _variance(self.a, draws, generator), _variance(self.b, draws, generator)
        grain, shared = uniform(*self.grain, generator), uniform(*self.shared, generator)
        noise = _normal(image.shape, grain, shared, generator)
        return to_8_bit(image + ((a * image + b).sqrt() * noise).to(image.dtype))


class Noise(Degradation):
    """What blind denoising learns from: one of three noises for every image.

    Args:
        weights: how often an image gets white noise of one strength, white noise of one strength a
            channel, and the noise of a camera, relative to one another.
        sigma: of :class:`GaussianNoise`, both kinds.
        a, b, grain, shared: of :class:`PoissonGaussianNoise`.

    Raises:
        ValueError: a range that does not rise or leaves its bounds, or weights that are negative
            or all 0.
    """

    def __init__(
        self,
        *,
        weights: tuple[float, float, float] = (0.4, 0.2, 0.4),
        sigma: tuple[float, float] = (5.0, 50.0),
        a: tuple[float, float] = (2e-5, 0.012),
        b: tuple[float, float] = (0.0, 1e-3),
        grain: tuple[float, float] = (0.0, 1.0),
        shared: tuple[float, float] = (0.0, 0.8),
    ) -> None:
        if not (min(weights) >= 0 and 0 < sum(weights) < math.inf):
            raise ValueError(f"weights must be at least 0 and not all 0, got {tuple(weights)}")
        self.weights = weights
        self.sigma = sigma
        self.a = a
        self.b = b
        self.grain = grain
        self.shared = shared
        self._kinds: tuple[Degradation, ...] = (
            GaussianNoise(sigma=sigma),
            GaussianNoise(sigma=sigma, per_channel=True),
            PoissonGaussianNoise(a=a, b=b, grain=grain, shared=shared),
        )

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """See :meth:`Degradation.degrade`."""
        kind = int(torch.multinomial(torch.tensor(self.weights), 1, generator=generator))
        return self._kinds[kind].degrade(image, generator)
