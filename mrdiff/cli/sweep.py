"""``mrdiff sweep``: try samplers at several NFE on a few pairs, and say which one to use.

What can be checked without torch is checked first, so that a wrong flag or path answers at once.
What is tried (:class:`Candidate`) and what comes out (:class:`Row`) are plain data, kept here too.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from mrdiff.cli.environment import set_thread_defaults
from mrdiff.cli.errors import CommandError, did_you_mean, run_command
from mrdiff.cli.parser import LineParser, positive
from mrdiff.cli.sample import SAMPLERS
from mrdiff.presets import EVIDENCE, PAPER

__all__ = [
    "DEFAULTS",
    "GRIDS",
    "METRICS",
    "SETTINGS",
    "Candidate",
    "Row",
    "candidates",
    "main",
    "make_parser",
    "read_csv",
    "write_csv",
    "write_text",
]

# The same as mrdiff.timegrid.GRID_NAMES and mrdiff.metrics.METRIC_NAMES, spelt out because
# importing those takes seconds.
GRIDS = ("uniform_t", "uniform_log_snr", "uniform_angle", "karras", "power", "leading", "trailing")
METRICS = ("psnr", "ssim", "psnr_y", "ssim_y", "lpips")
_NFES = (1, 2, 3, 5, 8, 10, 20)
SETTINGS = ("order", "eta", "grid", "prediction", "corrector", "temperature")
_PLAIN = ("label", "nfe", "sampler", *SETTINGS, "seconds")
_SMALLEST_CROP = 32  # LPIPS has nothing left of less


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


@dataclass(frozen=True)
class Row:
    """One candidate at one NFE on all images, or the degraded input itself (nfe 0).

    Attributes:
        label: of the candidate.
        nfe: network calls an image.
        sampler: its name for ``--sampler``; empty for the input.
        settings: :data:`SETTINGS` as text; empty where the sampler has no such option.
        seconds: per image, the median.
        scores: for each metric one value an image, the images in the same order in all rows.
    """

    label: str
    nfe: int
    sampler: str
    settings: Mapping[str, str]
    seconds: float
    scores: Mapping[str, tuple[float, ...]]

    def mean(self, metric: str) -> float:
        """Over the images."""
        return statistics.fmean(self.scores[metric])

    def __str__(self) -> str:
        return f"{self.label} at NFE {self.nfe}" if self.nfe else "degraded input"


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One line a row: the means of the metrics, then their values image by image."""
    metrics, text = list(rows[0].scores), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_PLAIN, *metrics, *(name + "_each" for name in metrics)])
    for row in rows:
        plain = [row.label, row.nfe, row.sampler, *row.settings.values(), row.seconds]
        means = [round(row.mean(name), 6) for name in metrics]
        each = [";".join(map(repr, row.scores[name])) for name in metrics]
        writer.writerow([*plain, *means, *each])
    write_text(path, text.getvalue())


def read_csv(path: Path) -> list[Row]:
    """The rows that :func:`write_csv` wrote."""
    rows = []
    for line in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
        metrics = [name for name in METRICS if name in line]
        scores = {name: tuple(map(float, line[name + "_each"].split(";"))) for name in metrics}
        label, nfe, sampler, *settings, seconds = (line[name] for name in _PLAIN)
        given = dict(zip(SETTINGS, settings, strict=True))
        rows.append(Row(label, int(nfe), sampler, given, float(seconds), scores))
    return rows


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


def _one_of(kind: str, known: Sequence[str]) -> Callable[[str], str]:
    """An argparse type: one of ``known``."""

    def check(text: str) -> str:
        if text not in known:
            hint = did_you_mean(text, known) or f": use one of {', '.join(known)}"
            raise argparse.ArgumentTypeError(f"unknown {kind} {text}{hint}")
        return text

    return check


def _grid(text: str) -> str:
    if Path(text).suffix.lower() in (".yaml", ".yml"):
        if not Path(text).is_file():
            raise argparse.ArgumentTypeError(f"no grid file {text}")
        return text
    _one_of("grid", GRIDS)(text.partition("(")[0])
    return text


def _number(text: str, *, least: float, most: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{what}, got {text}")
    return value


def _temperature(text: str) -> float:
    return _number(text, least=0, most=1, what="temperature lies in [0, 1]")


def _crop(text: str) -> int:
    what = f"crop must be at least {_SMALLEST_CROP} px"
    return int(_number(text, least=_SMALLEST_CROP, most=1e9, what=what))


_HELP = """\
Try samplers at several NFE on centre crops of a few pairs; write sweep.csv, sweep.png and
recommendation.txt. Named samplers, grids and temperatures are combined; without any, a selection
is tried. mr-ode-2 at 5 is always among the runs.
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
    add("--metric", type=_one_of("metric", METRICS), default="psnr", metavar="NAME", help=metrics)
    calls = f"network calls a photo ({' '.join(map(str, _NFES))})"
    add("--nfe", type=positive, nargs="+", default=_NFES, metavar="N", help=calls)
    sampler, grid = _one_of("sampler", SAMPLERS), f"{', '.join(GRIDS)}, power(2), …, or .yaml files"
    add("--sampler", type=sampler, nargs="+", default=(), metavar="NAME", help=", ".join(SAMPLERS))
    add("--grid", type=_grid, nargs="+", default=(), metavar="NAME|FILE", help=grid)
    noise = "of the noise, each in [0, 1]"
    add("--temperature", type=_temperature, nargs="+", default=(), metavar="T", help=noise)
    add("--budget", type=positive, metavar="N", help="recommend at most N network calls")
    add("--images", type=positive, default=4, metavar="N", help="pairs, spread evenly (4)")
    add("--crop", type=_crop, default=256, metavar="PX", help="side of the centre crops (256)")
    add("--seed", type=int, default=0, help="of the noise, with the photo's name (0)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--lpips_weights", type=Path, metavar="FILE", help="AlexNet features for LPIPS")
    trust = "also build classes of this package that the checkpoint names; only if you trust it"
    add("--allow_package", action="append", default=[], metavar="NAME", help=trust)
    add("--save", action="store_true", help="make the recommendation the checkpoint's default")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Refuse paths and a budget that cannot work."""
    if not options.checkpoint.exists():
        raise CommandError(f"no checkpoint at {options.checkpoint}", status=2)
    if not options.input.exists():
        raise CommandError(f"--input {options.input}: no such file or folder", status=2)
    if not options.reference.is_dir():
        raise CommandError(f"--reference {options.reference}: no such folder", status=2)
    if options.output.is_file():
        raise CommandError(f"--output {options.output}: must be a folder", status=2)
    if options.budget is not None and options.budget < min(options.nfe):
        least = min(options.nfe)
        raise CommandError(f"--budget {options.budget}: the least --nfe is {least}", status=2)


def _sweep(arguments: list[str], program: str) -> int:
    options = make_parser(program).parse(arguments)
    _check(options)
    tried = candidates(options.sampler, options.grid, options.temperature)
    set_thread_defaults()
    from mrdiff.cli.sweeping import run_sweep  # torch: seconds

    return run_sweep(options, tried)


def main(arguments: list[str], *, program: str = "mrdiff sweep") -> int:
    """Run the command and return its exit status."""
    return run_command(lambda: _sweep(arguments, program), program=program)
