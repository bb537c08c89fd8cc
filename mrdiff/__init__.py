"""mrdiff: mean-reverting diffusion for image restoration in a handful of network calls."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrdiff.checkpoints.reading import load_model as load_model
    from mrdiff.diffusion.bridges import DDBMVE as DDBMVE
    from mrdiff.diffusion.bridges import DDBMVP as DDBMVP
    from mrdiff.diffusion.bridges import GOUB as GOUB
    from mrdiff.diffusion.bridges import BrownianBridge as BrownianBridge
    from mrdiff.diffusion.bridges import UniDB as UniDB
    from mrdiff.diffusion.denoiser import Denoiser as Denoiser
    from mrdiff.diffusion.path import GaussianPath as GaussianPath
    from mrdiff.diffusion.prediction import Prediction as Prediction
    from mrdiff.diffusion.process import MRProcess as MRProcess
    from mrdiff.diffusion.schedule import ConstantTheta as ConstantTheta
    from mrdiff.diffusion.schedule import CosineTheta as CosineTheta
    from mrdiff.diffusion.schedule import LinearTheta as LinearTheta
    from mrdiff.diffusion.schedule import TabulatedTheta as TabulatedTheta
    from mrdiff.diffusion.shifts import RDDM as RDDM
    from mrdiff.diffusion.shifts import ConditionalVP as ConditionalVP
    from mrdiff.diffusion.shifts import DiffUIR as DiffUIR
    from mrdiff.diffusion.shifts import FlowMatching as FlowMatching
    from mrdiff.diffusion.shifts import InDI as InDI
    from mrdiff.diffusion.shifts import ResShift as ResShift
    from mrdiff.restoration.restorer import Restorer as Restorer
    from mrdiff.solvers.presets import make_sampler as make_sampler
    from mrdiff.solvers.sampler import MRSampler as MRSampler
    from mrdiff.training.module import MRDiffusion as MRDiffusion

__version__ = "0.1.0"

_HOMES = {
    "BrownianBridge": "diffusion.bridges",
    "ConditionalVP": "diffusion.shifts",
    "ConstantTheta": "diffusion.schedule",
    "CosineTheta": "diffusion.schedule",
    "DDBMVE": "diffusion.bridges",
    "DDBMVP": "diffusion.bridges",
    "Denoiser": "diffusion.denoiser",
    "DiffUIR": "diffusion.shifts",
    "FlowMatching": "diffusion.shifts",
    "GOUB": "diffusion.bridges",
    "GaussianPath": "diffusion.path",
    "InDI": "diffusion.shifts",
    "LinearTheta": "diffusion.schedule",
    "MRDiffusion": "training.module",
    "MRProcess": "diffusion.process",
    "MRSampler": "solvers.sampler",
    "Prediction": "diffusion.prediction",
    "RDDM": "diffusion.shifts",
    "ResShift": "diffusion.shifts",
    "Restorer": "restoration.restorer",
    "TabulatedTheta": "diffusion.schedule",
    "UniDB": "diffusion.bridges",
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
