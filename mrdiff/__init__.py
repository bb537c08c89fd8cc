"""mrdiff: mean-reverting diffusion for image restoration in a handful of network calls."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrdiff.checkpoint import load_model as load_model
    from mrdiff.denoiser import Denoiser as Denoiser
    from mrdiff.denoiser import Prediction as Prediction
    from mrdiff.module import MRDiffusion as MRDiffusion
    from mrdiff.process import MRProcess as MRProcess
    from mrdiff.restore import Restorer as Restorer
    from mrdiff.sampler import MRSampler as MRSampler
    from mrdiff.schedule import ConstantTheta as ConstantTheta
    from mrdiff.schedule import CosineTheta as CosineTheta
    from mrdiff.schedule import LinearTheta as LinearTheta
    from mrdiff.schedule import TabulatedTheta as TabulatedTheta

__version__ = "0.1.0"

_HOMES = {
    "ConstantTheta": "schedule",
    "CosineTheta": "schedule",
    "Denoiser": "denoiser",
    "LinearTheta": "schedule",
    "MRDiffusion": "module",
    "MRProcess": "process",
    "MRSampler": "sampler",
    "Prediction": "denoiser",
    "Restorer": "restore",
    "TabulatedTheta": "schedule",
    "load_model": "checkpoint",
}
__all__ = [*_HOMES]  # noqa: PLE0604  (strings, from the table above)


def __getattr__(name: str) -> Any:
    # Lazy, so that `train.py --help` answers before torch is imported.
    if name not in _HOMES:
        raise AttributeError(f"module 'mrdiff' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mrdiff.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
