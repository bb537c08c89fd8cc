"""What ``mrdiff sweep`` tries: samplers with their grids and temperatures, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from mrdiff.cli.common.errors import CommandError
from mrdiff.names import PAPER_SAMPLERS, TUNED_SAMPLERS

__all__ = ["DEFAULTS", "Candidate", "candidates"]


@dataclass(frozen=True)
class Candidate:
    """One sampler as ``sample.py`` takes it, to be tried at every NFE.

    Attributes:
        sampler: a name of :data:`mrdiff.names.SAMPLERS`.
        grid: a name or a ``.yaml`` file instead of the sampler's own.
        temperature: instead of the sampler's own.
    """

    sampler: str
    grid: str | None = None
    temperature: float | None = None

    @property
    def label(self) -> str:
        """For tables and legends: ``perceptual power(2) tau=0.5``."""
        parts = [self.sampler]
        if self.grid is not None:
            parts.append(Path(self.grid).name)
        if self.temperature is not None:
            parts.append(f"tau={self.temperature:g}")
        return " ".join(parts)


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

    Args:
        samplers: if empty, mr-ode-2 and perceptual; :data:`DEFAULTS` if all three are empty.
        grids: if empty, each sampler's own.
        temperatures: if empty, each sampler's own.

    Raises:
        CommandError: two grid files have the same name.
    """
    if not (samplers or grids or temperatures):
        return DEFAULTS
    found: dict[Candidate, None] = {}
    for sampler, grid, temperature in product(
        samplers or ("mr-ode-2", "perceptual"), grids or (None,), temperatures or (None,)
    ):
        mine = grid if sampler in PAPER_SAMPLERS or sampler in TUNED_SAMPLERS else None
        found[Candidate(sampler, *_unless_own(sampler, mine, temperature))] = None
    by_label = {candidate.label: candidate for candidate in found}
    for candidate in found:
        other = by_label[candidate.label]
        if other != candidate:
            raise CommandError(
                f"--grid {candidate.grid} and {other.grid}: rename one of them", status=2
            )
    return tuple(found)


def _unless_own(
    sampler: str, grid: str | None, temperature: float | None
) -> tuple[str | None, float | None]:
    """None for what the paper's samplers and the baselines have by themselves."""
    if sampler not in TUNED_SAMPLERS and temperature == 1.0:
        temperature = None
    return (None if sampler in PAPER_SAMPLERS and grid == "uniform_log_snr" else grid), temperature
