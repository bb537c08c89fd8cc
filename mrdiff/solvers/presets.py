"""The samplers behind the names: the paper's, and the best found at each NFE.

``fidelity`` and ``perceptual`` were chosen by measurement; docs/sampling.md has the evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
}


def chosen(name: str, nfe: int) -> Mapping[str, Any]:
    """The options of :class:`mrdiff.MRSampler` that ``name`` has at this NFE."""
    rows = EVIDENCE[name]
    return rows[max((least for least in rows if least <= nfe), default=min(rows))]
