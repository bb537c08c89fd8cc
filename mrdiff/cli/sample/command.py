"""``mrdiff sample`` = ``python sample.py``: restore photos, folders of photos or a clip.

What can be checked without torch is checked first, so that a wrong flag or path answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from mrdiff.cli.common.errors import CommandError, command
from mrdiff.cli.common.parser import LineParser, as_path, as_temperature, one_of, positive
from mrdiff.cli.common.paths import PIPE, check_file, check_inputs, check_output
from mrdiff.cli.sample.clips.request import check_clip, is_clip
from mrdiff.system.cores import set_process_defaults
from mrdiff.system.names import CLIPS, FORMATS, PRECISIONS

__all__ = ["main", "make_parser"]

# Nobody means a folder by them.
_PHOTOS = {".jpeg", ".tiff", *(f".{name}" for name in FORMATS)}
_IN_OUTPUT = ("compare", "trajectory")
_FOR_FILES = ("reference", "mask", "compare", "trajectory", "skip_existing", "log")


def _batch_size(text: str) -> int | None:
    return None if text == "auto" else positive(text)


def _add_files(parser: LineParser) -> None:
    group = parser.add_argument_group("input and output")
    add = group.add_argument
    photos = "photos, folders of photos, or a clip; - is standard input"
    add("photos", type=as_path, nargs="*", default=[], metavar="PHOTO", help=photos)
    parser.add_input(group, metavar="PHOTO", help="the same, by a flag", required=False)
    parser.add_checkpoint(group, bundled=True)
    kept = "folder for all, or a clip's file; - is standard output (photo_restored.jpg beside each)"
    add("--output", type=as_path, metavar="DIR|-", help=kept)
    kinds = f"of all that is written: {', '.join(FORMATS)} (that of each photo)"
    add("--format", type=one_of("format", FORMATS), metavar="NAME", help=kinds)
    holes = "masks by stem, white where the photo is intact, black in holes"
    add("--mask", type=Path, metavar="FILE|DIR", help=holes)
    add("--skip_existing", action="store_true", help="leave what is in the output already")
    bomb = "larger photos are refused, against decompression bombs (180)"
    add("--max_megapixels", type=positive, default=180, metavar="N", help=bomb)


def _add_model(parser: LineParser) -> None:
    group = parser.add_argument_group("model")
    add = group.add_argument
    task = "what degraded the photos, for a model of several tasks (auto: it judges)"
    add("--task", default="auto", metavar="NAME", help=task)
    seen = "DA-CLIP checkpoint, for a model that takes features"
    add("--daclip", type=Path, metavar="FILE", help=seen)
    stored = "features by mrdiff features, for a model that takes them"
    add("--context", type=Path, metavar="FILE.safetensors", help=stored)
    local = "side of its training patches, for a network with global averages: make them local"
    add("--local_pooling", type=positive, metavar="N", help=local)
    parser.add_allow_package(group)


def _add_sampler(parser: LineParser) -> None:
    group = parser.add_argument_group("sampler")
    add = group.add_argument
    parser.add_sampler(group)
    add("--grid", metavar="NAME|FILE", help="times of an mr sampler: a name or .yaml (its own)")
    scale = "of the noise, from 0, none, to 1, all (the sampler's)"
    add("--temperature", type=as_temperature, metavar="T", help=scale)
    add("--seed", type=int, default=0, help="of the noise, with the photo's name (0)")
    same = "one noise for all photos: the frames of a sequence do not flicker"
    add("--same_noise", action="store_true", help=same)
    several = "restorations whose mean is written, their deviation in OUTPUT/uncertainty (1)"
    add("--samples", type=positive, default=1, metavar="K", help=several)


def _add_speed(parser: LineParser) -> None:
    add = parser.add_argument_group("speed").add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    add("--devices", type=positive, default=1, metavar="N", help="processes, of a GPU each (1)")
    add("--num_nodes", type=positive, default=1, metavar="N", help="machines, as torchrun (1)")
    many = "photos of equal size at once, on a GPU (auto: up to 32, as the memory allows)"
    add("--batch_size", type=_batch_size, metavar="auto|N", help=many)
    sides = "side of tiles in pixels, or off (auto: as the memory allows)"
    add("--tile", default="auto", metavar="auto|off|N", help=sides)
    slow = "compile the network: slow to start, then perhaps faster"
    add("--compile", action="store_true", help=slow)
    ways = "torch, or openvino: slow to start, then faster on a CPU (torch)"
    backends = ("torch", "openvino")
    add("--backend", type=one_of("backend", backends), default="torch", metavar="NAME", help=ways)
    names = list(dict.fromkeys(chain(*PRECISIONS.values())))
    numbers = f"{', '.join(names)} (auto: on CUDA bf16 or tf32, as it was trained, else fp32)"
    known = one_of("precision", names)
    add("--precision", type=known, default="auto", metavar="NAME", help=numbers)


def _add_report(parser: LineParser) -> None:
    group = parser.add_argument_group("report")
    add = group.add_argument
    truth = "ground truth by stem: print a table"
    add("--reference", type=Path, metavar="FILE|DIR", help=truth)
    parser.add_protocol(group)
    add("--lpips_weights", type=Path, metavar="FILE", help="AlexNet features for LPIPS")
    add("--report", type=Path, metavar="FILE.html", help="a page of tables and pictures")
    add("--compare", action="store_true", help="side-by-side pictures in OUTPUT/compare")
    ways = "the way to each photo, at about 6 times the calls and 50 more: OUTPUT/trajectory"
    add("--trajectory", action="store_true", help=ways)
    add("--log", type=Path, metavar="FILE", help="append a line of JSON for each photo")


def make_parser(program: str) -> LineParser:
    """The flags of the command."""
    description = "Restore photos, folders of photos or a clip."
    parser = LineParser(prog=program, description=description)
    for add_group in (_add_files, _add_model, _add_sampler, _add_speed, _add_report):
        add_group(parser)
    return parser


def _check_paths(options: argparse.Namespace) -> None:
    check_inputs(options, pipe=True)
    if is_clip(options):
        check_clip(options)
    elif options.report is not None and options.reference is None:
        raise CommandError("--report needs --reference: what would it measure?", status=2)
    _check_output(options)
    if options.report is not None and options.report.suffix.lower() not in (".html", ".htm"):
        raise CommandError(f"--report {options.report}: is to be named .html", status=2)
    if options.log is not None and options.log.suffix.lower() in {*_PHOTOS, *CLIPS}:
        raise CommandError(f"--log {options.log}: is named as a photo: give another", status=2)
    for flag in ("log", "report"):
        if (file := getattr(options, flag)) is not None:
            check_file(file, flag=f"--{flag}")


def _refuse(options: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Refuse the first of these flags that is given, or several samples."""
    given = [name for name in names if getattr(options, name)]
    given += ["samples"] if options.samples > 1 else []
    if given:
        raise CommandError(f"--{given[0]} {why}", status=2)


def _check_output(options: argparse.Namespace) -> None:
    output = options.output
    if output is None:
        _refuse(options, _IN_OUTPUT, "needs --output DIR, for its pictures")
        return
    of_files = _PHOTOS if is_clip(options) else {*_PHOTOS, *CLIPS}
    if output.suffix.lower() in of_files and not output.is_dir():
        raise CommandError(f"--output {output}: must be a folder", status=2)
    if output != PIPE and not is_clip(options):
        check_output(output, output)


def _check_pipe(options: argparse.Namespace) -> None:
    if PIPE not in (*options.input, options.output):
        return
    _refuse(options, _FOR_FILES, "is for files, not for a pipe: leave it out")
    options.output = options.output or PIPE
    if options.output != PIPE or len(options.input) > 1 or options.input[0].is_dir():
        raise CommandError("a pipe takes one photo: --input -|FILE --output -", status=2)
    if sys.stdout.isatty():
        raise CommandError("--output -: redirect standard output to a file or a pipe", status=2)


def _check_backend(options: argparse.Namespace) -> None:
    """OpenVINO's device is the CPU; each has precisions of its own."""
    names = PRECISIONS[options.backend]
    if options.precision not in names:
        what = f"--precision {options.precision} is not for --backend {options.backend}"
        raise CommandError(f"{what}: use one of {', '.join(names)}", status=2)
    if options.backend == "torch":
        return
    if options.compile:
        raise CommandError("--compile is for --backend torch: leave one of them out", status=2)
    if options.device not in ("auto", "cpu"):
        message = f"--backend openvino is for the CPU, not for --device {options.device}"
        raise CommandError(message, status=2)
    options.device = "cpu"


def _parse(arguments: list[str], program: str) -> argparse.Namespace:
    """All photos as ``input``, those after ``--`` whatever they begin with."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = make_parser(program).parse(arguments[:end], mixed=True)
    photos = [*options.photos, *options.input, *map(Path, arguments[end + 1 :])]
    options.input = [*dict.fromkeys(photos)]
    return options


@command("mrdiff sample")
def main(arguments: list[str], program: str) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments, program)
    if not options.input:
        raise CommandError(f"which photo? {program} photo.jpg (see --help)", status=2)
    _check_pipe(options)
    _check_paths(options)
    _check_backend(options)
    set_process_defaults()
    from mrdiff.cli.sample.run import run_sampling  # torch: seconds

    return run_sampling(options)
