"""Low light: the same scene exposed too short, with the noise of its few photons.

A display value is undone to linear light by the sRGB curve (IEC 61966-2-1), where an exposure is
a factor and sensor noise is photons and read-out, of variance ``a l + b`` for light l (Foi et al.,
"Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image Raw-Data", IEEE TIP
2008). Noise belongs there and not in the finished picture, as in Brooks et al., "Unprocessing
Images for Learned Raw Denoising" (CVPR 2019). What a camera's tone curve squeezed below white comes
back first, by the inverse of a curve of the kind ``L / (1 + k L)`` (Reinhard et al., "Photographic
Tone Reproduction for Digital Images", SIGGRAPH 2002), so that lamps and windows stay bright when
the rest goes dark.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from datamodules.degradations.base import Degradation, check_range, to_8_bit
from datamodules.degradations.light import to_linear, to_srgb
from datamodules.randomness import uniform


class LowLight(Degradation):
    """A photograph taken with too little light.

    Args:
        exposure: in stops: at -3 an eighth of the light arrives. (0, 0) leaves it as it is.
        highlights: how many times brighter than white the whitest pixel was, drawn uniformly in
            its logarithm; (1, 1) for white. Above, lamps and skies may stay white in the dark.
        cast: factor of each channel of a colour image, drawn uniformly in its logarithm; (1, 1)
            is no colour cast.
        shot: variance a that light of 1 adds, in linear light: ``1 / a`` is the photons of white.
        read: standard deviation of the dark, in linear light. Where shot and read are (0, 0) there
            is no noise.

    Raises:
        ValueError: a range that does not rise or leaves its bounds.
    """

    def __init__(
        self,
        *,
        exposure: tuple[float, float] = (-6.0, -2.0),
        highlights: tuple[float, float] = (1.0, 16.0),
        cast: tuple[float, float] = (0.85, 1.18),
        shot: tuple[float, float] = (0.0, 4e-4),
        read: tuple[float, float] = (0.0, 1e-3),
    ) -> None:
        check_range("exposure", exposure, -16, 0)
        check_range("highlights", highlights, 1, 64)
        check_range("cast", cast, 0.1, 10)
        check_range("shot", shot, 0, 1)
        check_range("read", read, 0, 1)
        self.exposure = exposure
        self.highlights = highlights
        self.cast = cast
        self.shot = shot
        self.read = read

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """See :meth:`Degradation.degrade`."""
        low, high = (math.log(bound) for bound in self.highlights)
        white = math.exp(uniform(low, high, generator))
        light = to_linear(image)
        light = light / (1 - (1 - 1 / white) * light)
        light = light * 2.0 ** uniform(*self.exposure, generator) * self._cast(image, generator)
        shot, read = uniform(*self.shot, generator), uniform(*self.read, generator)
        if shot > 0:
            light = (shot * torch.poisson(light.float() / shot, generator=generator)).to(light)
        light = light + (read * torch.randn(image.shape, generator=generator)).to(light)
        return to_8_bit(to_srgb(light.clamp(min=0)))

    def _cast(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """The factors of the channels, ``[C, 1, 1]``; grey has no colour."""
        low, high = (math.log(bound) for bound in self.cast)
        factors = torch.rand(image.shape[0], 1, 1, generator=generator, dtype=image.dtype)
        if image.shape[0] == 1:
            return torch.ones_like(factors)
        return (low + (high - low) * factors).exp()
