"""``mrdiff grid``: find the times that serve a checkpoint best at a few network calls.

What can be checked without torch is checked first, so that a wrong flag or path answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mrdiff.cli.common.errors import CommandError, command
from mrdiff.cli.common.parser import (
    LineParser,
    as_crop,
    as_temperature,
    one_of,
    positive,
    whole,
)
from mrdiff.cli.common.paths import check_inputs, check_output
from mrdiff.system.cores import set_process_defaults
from mrdiff.system.names import BASELINES, PAPER_SAMPLERS, SAMPLERS, SEARCH_METRICS, TUNED_SAMPLERS

__all__ = ["main", "make_parser"]

_NFES = (2, 3, 4, 5, 8, 10)
_SAMPLERS = (*PAPER_SAMPLERS, *TUNED_SAMPLERS)


def _nfe(text: str) -> int:
    return whole(text, least=2, most=10, rule="nfe lies in 2 to 10")


def make_parser(program: str) -> LineParser:
    """The flags of the command."""
    description = (
        "Find the times that bring a few network calls closest to a hundred, or that do best in a "
        "metric, and write them as a file for sample.py --grid and MRSampler(grid=...)."
    )
    parser = LineParser(prog=program, description=description)
    add = parser.add_argument
    parser.add_checkpoint()
    parser.add_input(metavar="DIR", help="degraded photos to calibrate on")
    add("--output", type=Path, required=True, metavar="FILE", help=".yaml; replaced if it is there")
    add("--nfe", type=_nfe, nargs="+", default=_NFES, metavar="N", help="2 to 10 (2 3 4 5 8 10)")
    add("--reference", type=Path, metavar="DIR", help="ground truth by stem")
    metrics = "distance to 100 calls (default), or one with reference"
    add("--metric", choices=SEARCH_METRICS, help=metrics)
    route = "from the spectrum of reference - input alone, without the network: seconds"
    add("--spectrum", action="store_true", help=route)
    add("--images", type=positive, default=16, metavar="N", help="photos, spread over all (16)")
    add("--crop", type=as_crop, default=128, metavar="N", help="side of their centres (128)")
    names = f"whose times they are: {', '.join(_SAMPLERS)} (the checkpoint's, or mr-ode-2)"
    add("--sampler", type=one_of("sampler", SAMPLERS), metavar="NAME", help=names)
    add("--order", type=int, choices=(1, 2, 3, 4), help="instead of the sampler's")
    clocks = ("data", "noise", "velocity")
    add("--prediction", choices=clocks, help="the clock instead of the sampler's")
    add("--corrector", action="store_true", help="the sampler with the corrector")
    noise = "of the noise, in [0, 1], instead of the sampler's"
    add("--temperature", type=as_temperature, metavar="T", help=noise)
    add("--seed", type=int, default=0, help="of the noise, with the photo's name (0)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--lpips_weights", type=Path, metavar="FILE", help="AlexNet features for LPIPS")
    parser.add_allow_package()
    return parser


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot work."""

    def refuse(message: str) -> None:
        raise CommandError(message, status=2)

    check_inputs(options)
    if options.sampler in BASELINES:
        fixed = f"--sampler {options.sampler}: the times of a baseline are fixed"
        refuse(f"{fixed}: use one of {', '.join(_SAMPLERS)}")
    if options.output.suffix.lower() not in (".yaml", ".yml") or options.output.is_dir():
        refuse(f"--output {options.output}: must be a .yaml file")
    if options.spectrum and options.metric is not None:
        refuse("--spectrum has an error of its own: leave out --metric")
    if options.spectrum and options.reference is None:
        refuse("--spectrum needs --reference, the ground truth of the input")
    if options.metric not in (None, "distance") and options.reference is None:
        refuse(f"--metric {options.metric} needs --reference, the ground truth of the input")
    check_output(options.output, options.output.parent)


@command("mrdiff grid")
def main(arguments: list[str], program: str) -> int:
    """Run the command and return its exit status."""
    options = make_parser(program).parse(arguments)
    _check(options)
    set_process_defaults()
    from mrdiff.cli.grid.run import run_grid  # torch: seconds

    return run_grid(options)
