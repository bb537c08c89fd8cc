"""``mrdiff quantize``: make a checkpoint ready for ``sample --backend openvino --precision int8``.

What can be checked without torch is checked first, so that a wrong flag or path answers at once.
"""

from __future__ import annotations

from pathlib import Path

from mrdiff.cli.common.errors import command
from mrdiff.cli.common.parser import LineParser, as_crop, positive
from mrdiff.cli.common.paths import check_inputs, check_keepable
from mrdiff.system.cores import set_process_defaults

__all__ = ["main", "make_parser"]


def make_parser(program: str) -> LineParser:
    """The flags of the command."""
    description = (
        "Watch a network while it restores some photos, write into its checkpoint what 8-bit "
        "convolutions have to span, and print what they lose on other photos."
    )
    parser = LineParser(prog=program, description=description)
    add = parser.add_argument
    parser.add_checkpoint()
    parser.add_input(metavar="FILE|DIR", help="degraded photos")
    add("--reference", type=Path, metavar="DIR", help="ground truth by stem: PSNR against it, too")
    add("--mask", type=Path, metavar="DIR", help="masks by stem, for a model that takes them")
    add("--images", type=positive, default=16, metavar="N", help="photos, spread over all (16)")
    add("--crop", type=as_crop, default=384, metavar="N", help="side of their centres (384)")
    parser.add_sampler()
    add("--task", default="auto", metavar="auto|NAME", help="as for sample")
    add("--daclip", type=Path, metavar="FILE", help="as for sample")
    add("--context", type=Path, metavar="FILE.safetensors", help="as for sample")
    add("--dry_run", action="store_true", help="print the loss and leave the checkpoint as it is")
    parser.add_allow_package()
    return parser


@command("mrdiff quantize")
def main(arguments: list[str], program: str) -> int:
    """Run the command and return its exit status."""
    options = make_parser(program).parse(arguments)
    check_inputs(options)
    if not options.dry_run:
        check_keepable(options.checkpoint, "ranges")
    set_process_defaults()
    from mrdiff.cli.quantize.run import run_quantize  # torch: seconds

    return run_quantize(options)
