"""``mrdiff features``: what DA-CLIP sees in photos, in a file for ``mrdiff sample --context``."""

from __future__ import annotations

import argparse
from pathlib import Path

from mrdiff.cli.common.errors import CommandError, command
from mrdiff.cli.common.parser import LineParser
from mrdiff.cli.common.paths import check_output
from mrdiff.system.cores import set_process_defaults

__all__ = ["main", "make_parser"]


def make_parser(program: str) -> LineParser:
    description = "Store features of photos, of tasks, or of both, for sample.py --context."
    parser = LineParser(prog=program, description=description)
    add = parser.add_argument
    add("--daclip", type=Path, required=True, metavar="FILE", help="DA-CLIP checkpoint")
    kind = ".safetensors; replaced if it is there"
    add("--output", type=Path, required=True, metavar="FILE", help=kind)
    add("--input", type=Path, metavar="FILE|DIR", help="photos")
    names = "degradations, such as rainy hazy low-light; needs mrdiff[clip]"
    add("--tasks", nargs="+", default=[], metavar="NAME", help=names)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (auto)")
    return parser


def _check(options: argparse.Namespace) -> None:
    def refuse(message: str) -> None:
        raise CommandError(message, status=2)

    if options.input is None and not options.tasks:
        refuse("nothing to do: give photos by --input, degradations by --tasks, or both")
    if not options.daclip.is_file():
        refuse(f"--daclip {options.daclip}: no such file")
    if options.input is not None and not options.input.exists():
        refuse(f"--input {options.input}: no such file or folder")
    for task in options.tasks:
        if not task.strip() or "/" in task or task in ("text", "image"):
            refuse(f"--tasks: {task!r} is no name of a task")
    if options.output.suffix != ".safetensors" or options.output.is_dir():
        refuse(f"--output {options.output}: must be a .safetensors file")
    check_output(options.output, options.output.parent)


@command("mrdiff features")
def main(arguments: list[str], program: str) -> int:
    options = make_parser(program).parse(arguments)
    _check(options)
    set_process_defaults()
    from mrdiff.cli.features.run import run_featuring  # torch: seconds

    return run_featuring(options)
