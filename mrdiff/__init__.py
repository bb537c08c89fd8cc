"""mrdiff: mean-reverting diffusion for image restoration in a handful of network calls."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrdiff.checkpoints.reading import load_model as load_model
    from mrdiff.diffusion.denoiser import Denoiser as Denoiser
    from mrdiff.diffusion.prediction import Prediction as Prediction
    from mrdiff.diffusion.process import MRProcess as MRProcess
    from mrdiff.diffusion.schedule import ConstantTheta as ConstantTheta
    from mrdiff.diffusion.schedule import CosineTheta as CosineTheta
    from mrdiff.diffusion.schedule import LinearTheta as LinearTheta
    from mrdiff.diffusion.schedule import TabulatedTheta as TabulatedTheta
    from mrdiff.restoration.restorer import Restorer as Restorer
    from mrdiff.solvers.presets import make_sampler as make_sampler
    from mrdiff.solvers.sampler import MRSampler as MRSampler
    from mrdiff.training.module import MRDiffusion as MRDiffusion

__version__ = "0.1.0"

_HOMES = {
    "ConstantTheta": "diffusion.schedule",
    "CosineTheta": "diffusion.schedule",
    "Denoiser": "diffusion.denoiser",
    "LinearTheta": "diffusion.schedule",
    "MRDiffusion": "training.module",
    "MRProcess": "diffusion.process",
    "MRSampler": "solvers.sampler",
    "Prediction": "diffusion.prediction",
    "Restorer": "restoration.restorer",
    "TabulatedTheta": "diffusion.schedule",
    "load_model": "checkpoints.reading",
    "make_sampler": "solvers.presets",
}
__all__ = [*_HOMES]  # noqa: PLE0604  (strings, from the table above)


def __getattr__(name: str) -> Any:
    # Lazy, so that `train.py --help` answers before torch is imported.
    if name not in _HOMES:
        raise AttributeError(f"module 'mrdiff' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mrdiff.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
