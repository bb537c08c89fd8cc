"""``mrdiff sweep``: try samplers at several NFE on a few pairs, and say which one to use.

What can be checked without torch is checked first, so that a wrong flag or path answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mrdiff.cli.common.errors import CommandError, command
from mrdiff.cli.common.parser import LineParser, as_crop, as_temperature, one_of, positive
from mrdiff.cli.common.paths import check_inputs, check_keepable, check_output
from mrdiff.cli.sweep.candidates import candidates
from mrdiff.system.cores import set_process_defaults
from mrdiff.system.names import GRIDS, METRICS, SAMPLERS

__all__ = ["main", "make_parser"]

_NFES = (1, 2, 3, 5, 8, 10, 20)


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
    parser.add_checkpoint()
    parser.add_input(metavar="LQ_DIR", help="degraded photos")
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


@command("mrdiff sweep")
def main(arguments: list[str], program: str) -> int:
    """Run the command and return its exit status."""
    options = make_parser(program).parse(arguments)
    _check(options)
    tried = candidates(options.sampler, options.grid, options.temperature)
    set_process_defaults()
    from mrdiff.cli.sweep.run import run_sweep  # torch: seconds

    return run_sweep(options, tried)
