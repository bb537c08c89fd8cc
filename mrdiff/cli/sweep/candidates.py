"""What ``mrdiff sweep`` tries: samplers with their grids and temperatures, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from mrdiff.cli.common.errors import CommandError
from mrdiff.system.names import BASELINES, PAPER_SAMPLERS, TUNED_SAMPLERS

__all__ = ["DEFAULTS", "Candidate", "candidates"]


@dataclass(frozen=True)
class Candidate:
    """One sampler as ``sample.py`` takes it, to be tried at every NFE."""

    sampler: str
    grid: str | None = None  # a name or a .yaml file, instead of the sampler's own
    temperature: float | None = None

    @property
    def label(self) -> str:
        """For tables and legends: ``perceptual power(2) tau=0.5``."""
        grid = "" if self.grid is None else f" {Path(self.grid).name}"
        tau = "" if self.temperature is None else f" tau={self.temperature:g}"
        return self.sampler + grid + tau


# All of the paper's, the best found, the ancestral sampler, and around mr-ode-2 the three things
# that matter at few calls: the temperature, the corrector (perceptual has it) and the grid.
DEFAULTS = (
    *(Candidate(name) for name in (*PAPER_SAMPLERS, *TUNED_SAMPLERS, "posterior")),
    Candidate("mr-ode-2", temperature=0.5),
    Candidate("mr-ode-2", temperature=0.0),
    Candidate("mr-ode-2", grid="power(2)", temperature=0.0),
    Candidate("perceptual", temperature=0.0),
    Candidate("perceptual", grid="uniform_t"),
    Candidate("perceptual", grid="power(2)"),
)


def candidates(
    samplers: Sequence[str], grids: Sequence[str], temperatures: Sequence[float]
) -> tuple[Candidate, ...]:
    """Every combination of what was named; a baseline goes without a grid.

    Without grids or temperatures each sampler has its own, without samplers it is mr-ode-2 and
    perceptual, and without anything :data:`DEFAULTS`.

    Raises:
        CommandError: two grid files have the same name.
    """
    if not (samplers or grids or temperatures):
        return DEFAULTS
    names = samplers or ("mr-ode-2", "perceptual")
    named = product(names, grids or (None,), temperatures or (None,))
    found = dict.fromkeys(_plain(*choice) for choice in named)
    by_label = {candidate.label: candidate for candidate in found}
    for candidate in found:
        other = by_label[candidate.label]
        if other != candidate:
            files = f"--grid {candidate.grid} and {other.grid}"
            raise CommandError(f"{files}: rename one of them", status=2)
    return tuple(found)


def _plain(sampler: str, grid: str | None, temperature: float | None) -> Candidate:
    """Without what the paper's samplers and the baselines have by themselves."""
    own = sampler in PAPER_SAMPLERS and grid == "uniform_log_snr"
    plain = sampler not in TUNED_SAMPLERS and temperature == 1.0
    return Candidate(
        sampler,
        None if own or sampler in BASELINES else grid,
        None if plain else temperature,
    )
