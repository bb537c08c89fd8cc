"""2-Wasserstein error of every preset, baseline and official sampler against NFE.

    python -m benchmarks.oracle_nfe [--mixture three|smooth|five]

Each pixel's residual is a draw of a 1-D Gaussian mixture, for which the denoiser and the
distribution are exact. All samplers run on the process of the official cosine table (T = 100,
first entry kept), in float64 and unclipped: the official ones cannot run on another, and so no
difference is one of schedule. Deterministic samplers start from the midpoint quantiles of the
prior, and nothing in their row is random. Stochastic ones use scrambled Sobol numbers; the last row
is what is left of chance in them, the distance between two runs of mr-sde-2 with different ones.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from mrdiff import MRProcess, MRSampler, TabulatedTheta, make_sampler
from mrdiff.official.mars import MarsSampler
from mrdiff.solvers.baselines import BaselineSampler
from mrdiff.solvers.noise import NoiseSource
from mrdiff.solvers.oracle import MixtureOracle, stratified_prior, wasserstein2
from mrdiff.solvers.run import Sampler
from mrdiff.system.names import SAMPLERS

NFES = (1, 2, 3, 4, 5, 8, 10, 20, 50)
# means, standard deviations and weights, in image units
MIXTURES = {
    "three": ((-0.3, 0.05, 0.35), (0.03, 0.08, 0.02), (0.3, 0.45, 0.25)),
    "smooth": ((-0.15, 0.0, 0.2), (0.08, 0.05, 0.1), (0.3, 0.4, 0.3)),
    "five": ((-0.4, -0.2, 0.0, 0.15, 0.4), (0.03, 0.04, 0.02, 0.05, 0.03), (3, 4, 6, 4, 3)),
}
PROCESS = MRProcess(TabulatedTheta.irsde("cosine", keep_first=True))
COUNT, COUNT_STOCHASTIC = 1024, 16384
FLOOR = "(chance)"


def official(
    nfe: int, *, solver: Literal["ode", "sde"], order: int, denoise_last: bool
) -> MarsSampler:
    """The official sampler on linspace in float64, the result not clipped."""
    return MarsSampler(
        nfe=nfe,
        solver=solver,
        order=order,
        time_schedule="linspace",
        denoise_last=denoise_last,
        dtype=torch.float64,
        output_range=None,
    )


def samplers() -> dict[str, Callable[..., Sampler]]:
    """Sampler by name, as a function of NFE: ours, then the official ones."""
    found: dict[str, Callable[..., Sampler]] = {
        name: partial(make_sampler, name) for name in SAMPLERS
    }
    kinds: list[tuple[Literal["ode", "sde"], int]]
    kinds = [("ode", 1), ("ode", 2), ("ode", 3), ("sde", 1), ("sde", 2)]
    for solver, order in kinds:
        for last in (False, True):
            name = f"official {solver.upper()}-{order}{', denoise_last' if last else ''}"
            found[name] = partial(official, solver=solver, order=order, denoise_last=last)
    return found


def is_stochastic(sampler: Sampler) -> bool:
    """Whether it draws more than the prior."""
    if isinstance(sampler, MRSampler):
        return sampler.eta > 0
    if isinstance(sampler, MarsSampler):
        return sampler.solver == "sde"
    return isinstance(sampler, BaselineSampler) and sampler.name in ("euler-sde", "posterior")


def sobol_noise(count: int, steps: int, seed: int) -> NoiseSource:
    """Normal numbers for ``count`` pixels, one dimension a step."""
    engine = torch.quasirandom.SobolEngine(steps, scramble=True, seed=seed)
    uniform = engine.draw(count, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    normal = torch.special.ndtri(uniform)
    return lambda step, shape: normal[:, step].reshape(*shape)


def residuals(sampler: Sampler, oracle: MixtureOracle, *, seed: int = 1) -> Tensor:
    """What the sampler makes of the oracle, ``[1, 1, 1, count]``."""
    stochastic = is_stochastic(sampler)
    count = COUNT_STOCHASTIC if stochastic else COUNT
    # one for the prior, one a step, and the official code sometimes makes its last step twice
    noise = sobol_noise(count, sampler.nfe + 2, seed) if stochastic else stratified_prior(count)
    return sampler(oracle, torch.zeros(1, 1, 1, count, dtype=torch.float64), noise=noise)


def chance(oracle: MixtureOracle, nfe: int) -> float:
    """W2 between two runs of mr-sde-2 with different numbers."""
    sampler = make_sampler("mr-sde-2", nfe=nfe)
    one, two = (residuals(sampler, oracle, seed=seed).flatten().sort().values for seed in (1, 2))
    return float(torch.sqrt(torch.mean((one - two) ** 2)))


def errors(
    oracle: MixtureOracle,
    nfes: Sequence[int] = NFES,
    makers: Mapping[str, Callable[..., Sampler]] | None = None,
) -> dict[str, list[float]]:
    """W2 to the mixture by sampler, one number an NFE; NaN where a sampler has no such NFE.

    Args:
        oracle: the mixture.
        nfes: numbers of network calls.
        makers: samplers by name, as functions of NFE; all of :func:`samplers` by default.
    """
    table: dict[str, list[float]] = {}
    for name, make in (samplers() if makers is None else makers).items():
        table[name] = []
        for nfe in nfes:
            before = oracle.calls
            try:
                restored = residuals(make(nfe=nfe), oracle)
            except ValueError:  # the official code needs as many times as its order
                table[name].append(math.nan)
                continue
            # where the official code makes its last step twice it costs a call more
            honest = oracle.calls - before <= nfe
            table[name].append(wasserstein2(restored, oracle) if honest else math.nan)
    return table


def markdown(table: Mapping[str, Sequence[float]], nfes: Sequence[int] = NFES) -> str:
    """In units of 1/255, the least of each NFE in bold."""
    best = [
        min((row[i] for name, row in table.items() if name != FLOOR and not math.isnan(row[i])))
        for i in range(len(nfes))
    ]
    lines = [f"| W2 x 255 at NFE | {' | '.join(map(str, nfes))} |", "|---" * (len(nfes) + 1) + "|"]
    for name, row in table.items():
        cells = []
        for value, least in zip(row, best, strict=True):
            text = "" if math.isnan(value) else f"{255 * value:.2f}"
            cells.append(f"**{text}**" if value == least else text)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mixture", choices=MIXTURES, default="three")
    options = parser.parse_args(given)
    means, stds, weights = MIXTURES[options.mixture]
    oracle = MixtureOracle(PROCESS, means, stds, weights)
    table = errors(oracle)
    table[FLOOR] = [chance(oracle, nfe) for nfe in NFES]
    print(markdown(table))
    return 0


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
