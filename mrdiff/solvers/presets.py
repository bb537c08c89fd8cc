"""From a name or plain options to a sampler.

The names are the MR Sampler paper's, the best found at each NFE and the baselines. ``fidelity`` and
``perceptual`` were chosen by measurement; docs/sampling.md says what each aims at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral
from typing import Any

from mrdiff.solvers.baselines import BaselineSampler
from mrdiff.solvers.run import Sampler
from mrdiff.solvers.sampler import MRSampler
from mrdiff.solvers.timegrid import Grid
from mrdiff.system.names import BASELINES, SAMPLERS

DEFAULT_NAME, DEFAULT_NFE = "mr-ode-2", 5
MOST_NFE = 10_000

PAPER: Mapping[str, Mapping[str, Any]] = {
    "mr-ode-1": {"order": 1, "eta": 0.0},
    "mr-ode-2": {"order": 2, "eta": 0.0},
    "mr-ode-3": {"order": 3, "eta": 0.0},
    "mr-sde-1": {"order": 1, "eta": 1.0},
    "mr-sde-2": {"order": 2, "eta": 1.0},
}

_ACCURATE = {"order": 2, "corrector": True}

# By the least NFE from which on they hold.
EVIDENCE: Mapping[str, Mapping[int, Mapping[str, Any]]] = {
    "fidelity": {  # of E[x0 | mu]
        1: {"order": 1, "grid": "uniform_angle", "temperature": 0.0, "average": True},
    },
    "perceptual": {
        1: {**_ACCURATE, "grid": "uniform_angle"},
        5: {**_ACCURATE, "grid": "power(1.25)"},
        8: {**_ACCURATE, "grid": "uniform_t"},
    },
    "consistency": {  # of distilled models
        1: {"order": 1, "eta": math.inf, "grid": "uniform_angle(0.1)"},
    },
}


def _preset(name: str, nfe: int) -> Mapping[str, Any]:
    """The options of :class:`MRSampler` that ``name`` has at this NFE."""
    rows = EVIDENCE.get(name) or {1: PAPER[name]}
    return rows[max((least for least in rows if least <= nfe), default=min(rows))]


def make_sampler(
    spec: str | Mapping[str, Any] = DEFAULT_NAME,
    *,
    nfe: int | None = None,
    grid: Grid | None = None,
    temperature: float | None = None,
) -> Sampler:
    """The sampler of a name or of plain options.

    Args:
        spec: a name of :data:`mrdiff.system.names.SAMPLERS`, or options of :class:`MRSampler`,
            which may have a ``name`` among them: then they change that sampler.
        nfe, grid, temperature: instead of the sampler's own; without any NFE it is 5.

    Raises:
        ValueError: an unknown name or option, a value out of range, or a grid for a baseline.
    """
    options: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
    changes = {"nfe": nfe, "grid": grid, "temperature": temperature}
    options |= {key: value for key, value in changes.items() if value is not None}
    options.setdefault("nfe", DEFAULT_NFE)
    try:
        sampler = _made(**options)
    except TypeError as error:
        raise ValueError(f"sampler options {options}: {error}") from error
    sampler.spec = options if "name" in options else None
    return sampler


def _made(*, name: str | None = None, nfe: int, **options: Any) -> Sampler:
    if isinstance(nfe, bool) or not isinstance(nfe, Integral):
        raise TypeError(f"nfe must be a whole number, got {nfe!r}")
    if nfe > MOST_NFE:
        raise ValueError(f"nfe must be at most {MOST_NFE}, got {nfe}")
    if name is None:
        return MRSampler(nfe=nfe, **options)
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}: use one of {', '.join(SAMPLERS)}")
    if name not in BASELINES:
        return MRSampler(nfe=nfe, **{**_preset(name, nfe), **options})
    if "grid" in options:
        raise ValueError(f"a grid is for the mr samplers, not for {name}")
    return BaselineSampler(name=name, nfe=nfe, **options)
