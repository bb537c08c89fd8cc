"""``mrdiff sample`` = ``python sample.py``: restore a photo or a folder of photos.

What can be checked without torch is checked first, so that a wrong flag or path answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mrdiff.cli.common.errors import CommandError, run_command
from mrdiff.cli.common.inputs import check_inputs
from mrdiff.cli.common.parser import LineParser, as_temperature, one_of, positive
from mrdiff.names import FORMATS, PRECISIONS, PROTOCOLS, SAMPLERS
from mrdiff.system.cores import set_process_defaults

__all__ = ["main", "make_parser"]


def make_parser(program: str) -> LineParser:
    """The flags of the command."""
    parser = LineParser(prog=program, description="Restore a photo or a folder of photos.")
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="FILE", help=".ckpt or exported folder")
    add("--input", type=Path, required=True, metavar="FILE|DIR|-", help="degraded photos")
    add("--output", type=Path, required=True, metavar="DIR|-", help="relative paths are kept")
    kinds = f"of all that is written: {', '.join(FORMATS)} (that of each photo)"
    add("--format", type=one_of("format", FORMATS), metavar="NAME", help=kinds)
    add("--nfe", type=positive, metavar="N", help="network calls a photo (the checkpoint's, or 5)")
    names = f"{', '.join(SAMPLERS)} (the checkpoint's, or mr-ode-2)"
    add("--sampler", type=one_of("sampler", SAMPLERS), metavar="NAME", help=names)
    add("--grid", metavar="NAME|FILE", help="times of an mr sampler: a name or .yaml")
    add("--temperature", type=as_temperature, metavar="T", help="of the noise; 0: none, 1: all (1)")
    add("--seed", type=int, default=0, help="of the noise, with the photo's name (0)")
    add("--reference", type=Path, metavar="DIR", help="ground truth by stem: print a table")
    ways = "ir-sde crops a pixel at each side, as its test scripts (standard: nothing)"
    add("--protocol", type=one_of("protocol", PROTOCOLS), default="standard", help=ways)
    add("--report", type=Path, metavar="FILE.html", help="a page of tables and pictures")
    add(
        "--task",
        default="auto",
        metavar="auto|NAME",
        help="what spoilt the photos, if the model asks",
    )
    add("--daclip", type=Path, metavar="FILE", help="DA-CLIP checkpoint, for a model that asks it")
    stored = "features by mrdiff features, for a model that takes them"
    add("--context", type=Path, metavar="FILE.safetensors", help=stored)
    same = "one noise for all photos: the frames of a sequence do not flicker"
    add("--same_noise", action="store_true", help=same)
    add("--mask", type=Path, metavar="DIR", help="masks by stem: white was kept, black is a hole")
    add("--tile", default="auto", metavar="auto|off|N", help="auto: as the memory allows")
    local = "side of its training patches, for a network with global averages: make them local"
    add("--local_pooling", type=positive, metavar="N", help=local)
    add("--batch_size", type=positive, default=1, metavar="N", help="at once, on a GPU (1)")
    bomb = "larger photos are refused, against decompression bombs (180)"
    add("--max_megapixels", type=positive, default=180, metavar="N", help=bomb)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--devices", type=positive, default=1, metavar="N", help="processes, of a GPU each (1)")
    add("--num_nodes", type=positive, default=1, metavar="N", help="machines, as torchrun (1)")
    add(
        "--compile",
        action="store_true",
        help="compile the network: slow to start, then perhaps faster",
    )
    ways = "torch, or openvino: slow to start, then faster on a CPU (torch)"
    backends = ("torch", "openvino")
    add("--backend", type=one_of("backend", backends), default="torch", metavar="NAME", help=ways)
    numbers = f"of openvino's layers: {', '.join(PRECISIONS)} (f32); int8 after mrdiff quantize"
    add("--precision", type=one_of("precision", PRECISIONS), metavar="NAME", help=numbers)
    add("--skip_existing", action="store_true", help="keep what is in the output already")
    several = "restorations whose mean is written, their deviation in OUTPUT/uncertainty (1)"
    add("--samples", type=positive, default=1, metavar="K", help=several)
    add("--log", type=Path, metavar="FILE", help="append a line of JSON for each photo")
    add("--compare", action="store_true", help="side-by-side pictures in OUTPUT/compare")
    ways = "the way to each photo, at about 6 times the calls and 50 more: OUTPUT/trajectory"
    add("--trajectory", action="store_true", help=ways)
    add("--lpips_weights", type=Path, metavar="FILE", help="AlexNet features for LPIPS")
    parser.add_allow_package()
    return parser


def _check_paths(options: argparse.Namespace) -> None:
    """Refuse paths that cannot work."""
    check_inputs(options, pipe=Path("-"))
    if options.report is not None and options.reference is None:
        raise CommandError("--report needs --reference: what would it measure?", status=2)
    if options.output.is_file() or options.output.suffix.lower() in (".png", ".jpg", ".jpeg"):
        raise CommandError(f"--output {options.output}: must be a folder", status=2)


def _check_backend(options: argparse.Namespace) -> None:
    """Refuse what cannot go together; OpenVINO's device is the CPU."""
    if options.backend == "torch":
        if options.precision is not None:
            raise CommandError("--precision is for --backend openvino: leave it out", status=2)
        return
    if options.compile:
        raise CommandError("--compile is for --backend torch: leave one of them out", status=2)
    if options.device not in ("auto", "cpu"):
        message = f"--backend openvino is for the CPU, not for --device {options.device}"
        raise CommandError(message, status=2)
    options.device = "cpu"


def _sample(arguments: list[str], program: str) -> int:
    options = make_parser(program).parse(arguments)
    _check_paths(options)
    _check_backend(options)
    set_process_defaults()
    from mrdiff.cli.sample.run import run_sampling  # torch: seconds

    return run_sampling(options)


def main(arguments: list[str], *, program: str = "mrdiff sample") -> int:
    """Run the command and return its exit status."""
    return run_command(lambda: _sample(arguments, program), program=program)
