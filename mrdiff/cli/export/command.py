"""``mrdiff export``: a model as safe, plain files, or as programs that run without mrdiff."""

from __future__ import annotations

import argparse
from pathlib import Path

from mrdiff.checkpoints.places import name_of_model
from mrdiff.cli.common.errors import CommandError, command
from mrdiff.cli.common.parser import LineParser, one_of
from mrdiff.cli.common.paths import check_checkpoint
from mrdiff.system.cores import set_process_defaults

__all__ = ["main", "make_parser"]


def make_parser(program: str) -> LineParser:
    """The flags of the command."""
    description = (
        "Write model.safetensors and config.yaml of a checkpoint, or the model as programs of ONNX "
        "or of torch.export, which run without mrdiff."
    )
    parser = LineParser(prog=program, description=description)
    add = parser.add_argument
    parser.add_checkpoint()
    add("--output", type=Path, required=True, metavar="DIR")
    half = "weights in 16 bits: half the size, computed with in 32 all the same"
    add("--half", action="store_true", help=half)
    kinds = one_of("kind", ("onnx", "torch"))
    add("--to", type=kinds, metavar="onnx|torch", help="write programs instead of weights")
    parser.add_sampler()
    parser.add_allow_package()
    return parser


def _check(options: argparse.Namespace) -> None:
    check_checkpoint(options)
    if options.to is None:
        for flag in ("sampler", "nfe"):
            if getattr(options, flag) is not None:
                raise CommandError(f"--{flag} is for --to onnx or --to torch", status=2)
    elif options.half:
        raise CommandError(f"--half is for weights, not for --to {options.to}", status=2)


@command("mrdiff export")
def main(arguments: list[str], program: str) -> int:
    """Run the command and return its exit status."""
    options = make_parser(program).parse(arguments)
    _check(options)
    if options.to is not None:
        set_process_defaults()
        from mrdiff.cli.export.run import run_programs  # torch: seconds

        return run_programs(options)
    from mrdiff.checkpoints.export import export_model  # torch: seconds

    export_model(options.checkpoint, options.output, half=options.half)
    print(f"exported {name_of_model(options.checkpoint)} -> {options.output}")
    return 0
