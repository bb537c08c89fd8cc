"""Degradations, one module a family. A new one is a subclass of :class:`Degradation`."""

from datamodules.degradations.base import Degradation
from datamodules.degradations.rain import Rain

__all__ = ["Degradation", "Rain"]
