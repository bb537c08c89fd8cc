"""``mrdiff convert``: an official checkpoint becomes one of ours."""

from __future__ import annotations

import argparse
from pathlib import Path

from mrdiff.cli.common.errors import CommandError, command
from mrdiff.cli.common.parser import LineParser, one_of
from mrdiff.cli.convert.options import add_flags, read_yml, trained_with
from mrdiff.system.files import is_free
from mrdiff.system.names import ARCHITECTURES

__all__ = ["main", "make_parser"]


def make_parser(program: str) -> LineParser:
    description = "Make a checkpoint that sample.py takes of an official one."
    parser = LineParser(prog=program, description=description)
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="official weights, e.g. 700000_G.pth")
    add("out", type=Path, metavar="OUT", help="the folder to make; missing or empty")
    kinds = f"refuse it if it is not this: {', '.join(ARCHITECTURES)}"
    kind = one_of("kind", ARCHITECTURES)
    add("--as", dest="kind", type=kind, metavar="KIND", help=kinds)
    add("--yml", type=Path, metavar="FILE", help="official options of its training or test")
    add_flags(parser)
    return parser


def _check_paths(options: argparse.Namespace) -> None:
    for what, path in (("checkpoint", options.file), ("--yml", options.yml)):
        if path is not None and not path.is_file():
            raise CommandError(f"{what} {path}: no such file", status=2)
    if not is_free(options.out):
        what = f"{options.out} exists and is not an empty folder: choose another"
        raise CommandError(what, status=2)


@command("mrdiff convert")
def main(arguments: list[str], program: str) -> int:
    options = make_parser(program).parse(arguments)
    _check_paths(options)
    content = read_yml(options.yml) if options.yml else {}
    trained = trained_with(options, content)
    from mrdiff.cli.convert.run import run_convert  # torch: seconds

    return run_convert(options, content, trained)
