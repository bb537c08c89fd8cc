"""Degradations, one module a family. A new one is a subclass of :class:`Degradation`."""

from datamodules.degradations.base import (
    BatchDegradation,
    Degradation,
    Degraded,
    MaskedDegradation,
)
from datamodules.degradations.compose import Chain, OneOf, Repeat, Sometimes
from datamodules.degradations.haze import Haze
from datamodules.degradations.inpainting import Inpainting
from datamodules.degradations.jpeg import JPEG
from datamodules.degradations.low_light import LowLight
from datamodules.degradations.motion_blur import MotionBlur
from datamodules.degradations.noise import GaussianNoise, Noise, PoissonGaussianNoise
from datamodules.degradations.optics import GaussianBlur, Resize, SincBlur
from datamodules.degradations.rain import Rain
from datamodules.degradations.raindrop import Raindrop
from datamodules.degradations.shadow import Shadow
from datamodules.degradations.snow import Snow
from datamodules.degradations.tasks import Tasks

__all__ = [
    "JPEG",
    "BatchDegradation",
    "Chain",
    "Degradation",
    "Degraded",
    "GaussianBlur",
    "GaussianNoise",
    "Haze",
    "Inpainting",
    "LowLight",
    "MaskedDegradation",
    "MotionBlur",
    "Noise",
    "OneOf",
    "PoissonGaussianNoise",
    "Rain",
    "Raindrop",
    "Repeat",
    "Resize",
    "Shadow",
    "SincBlur",
    "Snow",
    "Sometimes",
    "Tasks",
]
