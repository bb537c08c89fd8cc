"""Low light: the same scene exposed too short, with the noise of its few photons.

In linear light (sRGB, IEC 61966-2-1) an exposure is a factor and sensor noise has variance
``a l + b`` for light l (Foi et al., IEEE TIP 2008); noise belongs there, as in Brooks et al.,
"Unprocessing Images for Learned Raw Denoising" (CVPR 2019). What a camera's tone curve squeezed
below white comes back first, by the inverse of ``L / (1 + k L)`` (Reinhard et al., "Photographic
Tone Reproduction for Digital Images", SIGGRAPH 2002), so that lamps and windows stay bright.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from torch import Tensor

from datamodules.degradations.base import Degradation, parameter, to_8_bit
from datamodules.randomness import log_uniform, uniform


@dataclass(frozen=True, kw_only=True, eq=False)
class LowLight(Degradation):
    """A photograph taken with too little light.

    Args:
        exposure: in stops: at -3 an eighth of the light arrives. (0, 0) leaves it as it is.
        highlights: how many times brighter than white the whitest pixel was, drawn uniformly in
            its logarithm.
        cast: factor of each channel of a colour image, drawn uniformly in its logarithm.
        shot: variance a that light of 1 adds, in linear light: ``1 / a`` is the photons of white.
        read: standard deviation of the dark, in linear light.
    """

    exposure: tuple[float, float] = parameter((-6.0, -2.0), within=(-16, 0))
    highlights: tuple[float, float] = parameter((1.0, 16.0), within=(1, 64))
    cast: tuple[float, float] = parameter((0.85, 1.18), within=(0.1, 10))
    shot: tuple[float, float] = parameter((0.0, 4e-4), within=(0, 1))
    read: tuple[float, float] = parameter((0.0, 1e-3), within=(0, 1))

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        white = log_uniform(*self.highlights, generator)
        light = rgb_to_linear_rgb(image.expand(3, -1, -1))[: len(image)]
        light = light / (1 - (1 - 1 / white) * light)
        light = light * 2.0 ** uniform(*self.exposure, generator) * self._cast(image, generator)
        shot, read = uniform(*self.shot, generator), uniform(*self.read, generator)
        if shot > 0:
            light = (shot * torch.poisson(light.float() / shot, generator=generator)).to(light)
        light = light + (read * torch.randn(image.shape, generator=generator)).to(light)
        return to_8_bit(linear_rgb_to_rgb(light.clamp(min=0).expand(3, -1, -1))[: len(image)])

    def _cast(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """The factors of the channels, ``[C, 1, 1]``; grey has no colour."""
        low, high = (math.log(bound) for bound in self.cast)
        factors = torch.rand(image.shape[0], 1, 1, generator=generator, dtype=image.dtype)
        if image.shape[0] == 1:
            return torch.ones_like(factors)
        return (low + (high - low) * factors).exp()
