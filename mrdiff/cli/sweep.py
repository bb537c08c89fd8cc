"""``mrdiff sweep``: try samplers at several NFE on a few pairs, and say which one to use.

What can be checked without torch is checked first, so that a wrong flag or path answers at once.
What is tried (:class:`Candidate`) is plain data, kept here too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from mrdiff.cli.environment import set_process_defaults
from mrdiff.cli.errors import CommandError, run_command
from mrdiff.cli.inputs import check_inputs
from mrdiff.cli.outputs import check_keepable, check_output
from mrdiff.cli.parser import LineParser, as_crop, as_temperature, one_of, positive
from mrdiff.cli.sample import SAMPLERS
from mrdiff.cli.sweep_rows import METRICS
from mrdiff.presets import EVIDENCE, PAPER

__all__ = ["DEFAULTS", "GRIDS", "METRICS", "Candidate", "candidates", "main", "make_parser"]

# The same as mrdiff.timegrid.GRID_NAMES, spelt out because importing that takes seconds.
GRIDS = ("uniform_t", "uniform_log_snr", "uniform_angle", "karras", "power", "leading", "trailing")
_NFES = (1, 2, 3, 5, 8, 10, 20)


@dataclass(frozen=True)
class Candidate:
    """One sampler as ``sample.py`` takes it, to be tried at every NFE.

    Attributes:
        sampler: a name of :data:`mrdiff.sampler.SAMPLER_NAMES`.
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
    *(Candidate(name) for name in (*PAPER, *EVIDENCE, "posterior")),
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
        mine = grid if sampler in PAPER or sampler in EVIDENCE else None
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
    if sampler not in EVIDENCE and temperature == 1.0:
        temperature = None
    return (None if sampler in PAPER and grid == "uniform_log_snr" else grid), temperature


def _grid(text: str) -> str:
    if Path(text).suffix.lower() in (".yaml", ".yml"):
        if not Path(text).is_file():
            raise argparse.ArgumentTypeError(f"no grid file {text}")
        return text
    one_of("grid", GRIDS)(text.partition("(")[0])
    return text


_HELP = """\
Try samplers at several NFE on centre crops of a few pairs; write sweep.csv, sweep.png and
recommendation.txt, or on Ctrl+C sweep.partial.csv and so on. Named samplers, grids and
temperatures are combined; without any, a selection is tried. mr-ode-2 at 5 is always among the
runs.
"""


def make_parser(program: str) -> LineParser:
    """The flags of the command."""
    parser = LineParser(prog=program, description=_HELP)
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="FILE", help=".ckpt or exported folder")
    add("--input", type=Path, required=True, metavar="LQ_DIR", help="degraded photos")
    add("--reference", type=Path, required=True, metavar="GT_DIR", help="the clean ones, by stem")
    add("--output", type=Path, required=True, metavar="DIR", help="for the three files")
    metrics = f"what is best: {', '.join(METRICS)} (psnr)"
    add("--metric", type=one_of("metric", METRICS), default="psnr", metavar="NAME", help=metrics)
    calls = f"network calls a photo ({' '.join(map(str, _NFES))})"
    add("--nfe", type=positive, nargs="+", default=_NFES, metavar="N", help=calls)
    sampler, grid = one_of("sampler", SAMPLERS), f"{', '.join(GRIDS)}, power(2), …, or .yaml files"
    add("--sampler", type=sampler, nargs="+", default=(), metavar="NAME", help=", ".join(SAMPLERS))
    add("--grid", type=_grid, nargs="+", default=(), metavar="NAME|FILE", help=grid)
    noise = "of the noise, each in [0, 1]"
    add("--temperature", type=as_temperature, nargs="+", default=(), metavar="T", help=noise)
    add("--budget", type=positive, metavar="N", help="recommend at most N network calls")
    add("--images", type=positive, default=4, metavar="N", help="pairs, spread evenly (4)")
    add("--crop", type=as_crop, default=256, metavar="PX", help="side of the centre crops (256)")
    add("--seed", type=int, default=0, help="of the noise, with the photo's name (0)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--lpips_weights", type=Path, metavar="FILE", help="AlexNet features for LPIPS")
    parser.add_allow_package()
    add("--save", action="store_true", help="make the recommendation the checkpoint's default")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Refuse paths and a budget that cannot work; nothing is left behind of trying to write."""
    check_inputs(options)
    if options.output.is_file():
        raise CommandError(f"--output {options.output}: must be a folder", status=2)
    if options.budget is not None and options.budget < min(options.nfe):
        least = min(options.nfe)
        raise CommandError(f"--budget {options.budget}: the least --nfe is {least}", status=2)
    check_output(options.output, options.output)
    if options.save:
        check_keepable(options.checkpoint, "a sampler")


def _sweep(arguments: list[str], program: str) -> int:
    options = make_parser(program).parse(arguments)
    _check(options)
    tried = candidates(options.sampler, options.grid, options.temperature)
    set_process_defaults()
    from mrdiff.cli.sweeping import run_sweep  # torch: seconds

    return run_sweep(options, tried)


def main(arguments: list[str], *, program: str = "mrdiff sweep") -> int:
    """Run the command and return its exit status."""
    return run_command(lambda: _sweep(arguments, program), program=program)
