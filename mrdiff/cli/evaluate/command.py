"""``mrdiff evaluate``: the quality of a model by task, sampler and network calls.

What can be checked without torch is checked first, so that a wrong flag or path answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mrdiff.cli.common.errors import CommandError, command
from mrdiff.cli.common.parser import LineParser, as_crop, as_path, one_of, positive
from mrdiff.cli.common.paths import check_checkpoint, check_files, check_output
from mrdiff.cli.evaluate.sets import find_sets
from mrdiff.system.cores import set_process_defaults
from mrdiff.system.names import (
    BACKBONES,
    IMAGE_METRICS,
    PRECISIONS,
    SAMPLERS,
    SET_METRICS,
)

__all__ = ["main", "make_parser"]

_NFES = (1, 2, 3, 5, 10, 20)
_KNOWN = (*IMAGE_METRICS, *SET_METRICS)
_FILES = ("daclip", "lpips_weights", "vgg_weights", "backbone_weights")

_HELP = """\
Measure a model on test pairs, by task, sampler and network calls: evaluate.csv, evaluate.md,
evaluate.png and report.html. What is done is kept photo by photo in the output, and the same
command goes on from there.
"""


def _add_files(parser: LineParser) -> None:
    add = parser.add_argument_group("data and output")
    parser.add_checkpoint(add, bundled=True)
    folder = "of <task>/LQ and <task>/GT (and <task>/mask), or of LQ and GT"
    add.add_argument("--data", type=as_path, required=True, metavar="DIR", help=folder)
    some = "those folders of DIR alone (all)"
    add.add_argument("--tasks", nargs="+", default=(), metavar="NAME", help=some)
    add.add_argument("--output", type=as_path, required=True, metavar="DIR", help="for all files")
    few = "pairs of each task, spread evenly (all)"
    add.add_argument("--images", type=positive, metavar="N", help=few)
    crop = "side of centre crops (whole photos)"
    add.add_argument("--crop", type=as_crop, metavar="PX", help=crop)


def _add_model(parser: LineParser) -> None:
    group = parser.add_argument_group("model and sampler")
    add = group.add_argument
    sampler, names = one_of("sampler", SAMPLERS), f"{', '.join(SAMPLERS)} (the checkpoint's)"
    add("--sampler", type=sampler, nargs="+", default=(), metavar="NAME", help=names)
    calls = f"network calls a photo ({' '.join(map(str, _NFES))})"
    add("--nfe", type=positive, nargs="+", default=_NFES, metavar="N", help=calls)
    task = "what a model of several tasks is told, or auto: it judges (the folder's name if it \
knows that task, else auto)"
    add("--task", metavar="NAME", help=task)
    add("--seed", type=int, default=0, help="of the noise, with the photo's name (0)")
    seen = "DA-CLIP checkpoint, for a model that takes features"
    add("--daclip", type=Path, metavar="FILE", help=seen)
    parser.add_allow_package(group)


def _add_speed(parser: LineParser) -> None:
    add = parser.add_argument_group("speed").add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--devices", type=positive, default=1, metavar="N", help="processes, of a GPU each (1)")
    machines = "machines, as torchrun, with one output folder (1)"
    add("--num_nodes", type=positive, default=1, metavar="N", help=machines)
    numbers = PRECISIONS["torch"]
    known = f"{', '.join(numbers)} (auto: on CUDA bf16 or tf32, as it was trained, else fp32)"
    kind = one_of("precision", numbers)
    add("--precision", type=kind, default="auto", metavar="NAME", help=known)


def _add_metrics(parser: LineParser) -> None:
    group = parser.add_argument_group("metrics")
    add = group.add_argument
    names = f"{', '.join(_KNOWN)} (all that can be measured here, but sw)"
    add("--metrics", type=one_of("metric", _KNOWN), nargs="+", metavar="NAME", help=names)
    parser.add_protocol(group)
    features = f"whose features FID and KID compare: {', '.join(BACKBONES)} (the first found)"
    kind = one_of("backbone", BACKBONES)
    add("--backbone", type=kind, metavar="NAME", help=features)
    add("--backbone_weights", type=Path, metavar="FILE", help="of --backbone")
    add("--lpips_weights", type=Path, metavar="FILE", help="AlexNet features for LPIPS")
    add("--vgg_weights", type=Path, metavar="FILE", help="VGG16 features for DISTS")


def make_parser(program: str) -> LineParser:
    """The flags of the command."""
    parser = LineParser(prog=program, description=_HELP)
    for add_group in (_add_files, _add_model, _add_speed, _add_metrics):
        add_group(parser)
    return parser


def _check(options: argparse.Namespace) -> None:
    check_checkpoint(options)
    check_files(options, _FILES)
    if options.backbone_weights is not None and options.backbone is None:
        message = f"--backbone_weights: say whose they are: --backbone {'|'.join(BACKBONES)}"
        raise CommandError(message, status=2)


@command("mrdiff evaluate")
def main(arguments: list[str], program: str) -> int:
    """Run the command and return its exit status."""
    options = make_parser(program).parse(arguments)
    _check(options)
    sets = find_sets(options.data, options.tasks)
    check_output(options.output, options.output)
    set_process_defaults()
    from mrdiff.cli.evaluate.run import run_evaluation  # torch: seconds

    return run_evaluation(options, sets)
