"""Low light: the same scene exposed too short, with the noise of its few photons.

In linear light an exposure is a factor and sensor noise has variance ``a l + b`` for light l (Foi
et al., IEEE TIP 2008); noise belongs there, as in Brooks et al., "Unprocessing Images for Learned
Raw Denoising" (CVPR 2019). What a camera's tone curve squeezed below white comes back first, by the
inverse of ``L / (1 + k L)`` (Reinhard et al., "Photographic Tone Reproduction for Digital Images",
SIGGRAPH 2002), so that lamps and windows stay bright.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.degradations.base import BatchDegradation, Degraded, parameter, to_8_bit
from datamodules.degradations.fields import PHOTO_SIDE, draw_waves, smooth_fields
from datamodules.degradations.packing import Draws, Shape, per_image
from datamodules.degradations.srgb import to_linear, to_srgb
from datamodules.degradations.white_noise import normal_field
from datamodules.randomness import log_uniform, new_seed, uniform

_FEW = 1.5  # photons; fewer are counted one by one
_MOST = 8  # of few photons: more come once in forty thousand pixels
_SPAN = (100.0, PHOTO_SIDE)  # pixels over which the light changes
_NO_SHOT = 1e-12  # a variance that no 8-bit value shows


def photons(rate: Tensor, normal: Tensor) -> Tensor:
    """How many photons arrive where ``rate`` do on average: Poisson counts, made of normal numbers.

    Few are counted until their probabilities add up to that of ``normal``. Many follow the
    expansion of Giles, "Algorithm 955: Approximation of the Inverse Poisson Cumulative Distribution
    Function" (ACM TOMS 2016), by which counts are off by one in 0.5 % of the pixels at ``_FEW`` and
    ever fewer above.
    """
    few, many = rate.clamp(max=_FEW), rate.clamp(min=_FEW)
    missing = torch.special.ndtr(normal).mul_(few.exp())  # of the sum of few^k / k!
    count, term, more = torch.zeros_like(few), torch.ones_like(few), torch.empty_like(few)
    for k in range(_MOST):
        missing.sub_(term, alpha=1 / math.factorial(k))
        count.add_(torch.gt(missing, 0, out=more))
        term.mul_(few)
    root, square = many.rsqrt(), normal.square()
    third = (square * (1 / 270)).add_(7 / 810).mul_(square).sub_(8 / 405).mul_(root)
    square.add_(2)
    second = (square * (-1 / 72)).mul_(normal).add_(third).mul_(root)
    many = many.addcdiv_(normal, root).add_(square, alpha=1 / 6).add_(second).floor_().clamp_(min=0)
    return count.lerp_(many, torch.ge(rate, _FEW, out=more))


def _mostly_low(low: float, high: float, generator: torch.Generator) -> float:
    """One number from [low, high), every other one from its first eighth."""
    return low + (high - low) * uniform(0, 1, generator) ** 3


@dataclass(frozen=True, kw_only=True, eq=False)
class LowLight(BatchDegradation):
    """A photograph taken with too little light.

    Not shown: banding and hot pixels of a sensor, what a camera does against noise, and things that
    moved between two exposures.

    Args:
        exposure: in stops: at -3 an eighth of the light arrives. (0, 0) leaves it as it is.
        uneven: the stops by which a window or a lamp lights up a part of the picture, at a typical
            place of it; nowhere is more light than in the truth.
        highlights: how many times brighter than white the whitest pixel was, drawn uniformly in
            its logarithm. The more, the steeper are the contrasts in the dark.
        cast: factor of each channel of a colour image, drawn uniformly in its logarithm.
        shot: variance a that light of 1 adds, in linear light: ``1 / a`` is the photons of white.
            Every other one is from the first eighth of the range, as of ``read``: most have little.
        read: standard deviation of the dark, in linear light.
    """

    exposure: tuple[float, float] = parameter((-8.5, -3.0), within=(-16, 0))
    uneven: tuple[float, float] = parameter((0.0, 4.0), within=(0, 8))
    highlights: tuple[float, float] = parameter((1.0, 64.0), within=(1, 64))
    cast: tuple[float, float] = parameter((0.85, 1.18), within=(0.1, 10))
    shot: tuple[float, float] = parameter((0.0, 4e-4), within=(0, 1))
    read: tuple[float, float] = parameter((0.0, 1e-3), within=(0, 1))

    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        white = log_uniform(*self.highlights, generator)
        exposure = uniform(*self.exposure, generator)
        low, high = (math.log(bound) for bound in self.cast)
        cast = (low + (high - low) * torch.rand(1, shape[0], generator=generator)).exp()
        return {
            "squeezed": 1 - 1 / white,
            "exposure": exposure,
            "cast": cast if shape[0] == 3 else torch.ones(1, 1),  # grey has no colour
            "shot": max(_NO_SHOT, _mostly_low(*self.shot, generator)),
            "read": _mostly_low(*self.read, generator),
            "shot_seed": new_seed(generator),
            "read_seed": new_seed(generator),
            "uneven": uniform(*self.uneven, generator),
            "waves": draw_waves(log_uniform(*_SPAN, generator), generator),
        }

    def apply(self, images: Tensor, draws: Draws) -> Degraded:
        light = to_linear(images.float())
        light = light.div_(1 - per_image(draws["squeezed"]) * light)
        lit = smooth_fields(draws["waves"], *images.shape[-2:])[:, None].clamp_(min=0)
        stops = per_image(draws["exposure"]) + per_image(draws["uneven"]) * lit
        light = light.mul_(stops.clamp_(max=0).exp2_()).mul_(per_image(draws["cast"]))
        shot, read = per_image(draws["shot"]), per_image(draws["read"])
        light = photons(light / shot, normal_field(draws["shot_seed"], images.shape[1:]))
        noise = normal_field(draws["read_seed"], images.shape[1:])
        light = light.mul_(shot).addcmul_(read, noise)
        return Degraded(to_8_bit(to_srgb(light.clamp_(min=0)).to(images.dtype)))
