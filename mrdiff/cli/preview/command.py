"""``mrdiff preview``: draw what training will see; flags without torch, which answer at once."""

from __future__ import annotations

from pathlib import Path

from mrdiff.cli.common.errors import CommandError, command
from mrdiff.cli.common.parser import LineParser, allow_own_classes, one_of, positive, whole
from mrdiff.cli.common.paths import check_output
from mrdiff.cli.train.arguments import prepare
from mrdiff.system.cores import set_process_defaults

__all__ = ["SETS", "SUFFIXES", "main", "make_parser"]

SETS = ("train", "val", "both")
SUFFIXES = (".png", ".jpg", ".jpeg")  # what mrdiff.photo writes, which imports torch

# A preview needs no accelerator, and a recipe for eight GPUs can be looked at anywhere.
_HERE = (
    *("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=1"),
    *("--trainer.strategy=auto", "--trainer.precision=32-true"),
)

_HELP = """\
Draw the first samples of a training run, and the first validation photos: degraded, clean, the
mask if there is one, and the difference. Print their sizes, ranges, PSNR and time, and a warning
for whatever looks wrong. Nothing is trained and nothing but the sheet is written.
"""
_MORE = """\
Configs and overrides, --data.degradation.severity [0.5,1] and the like, are those of training.
"""


def _seed(text: str) -> int:
    return whole(text, least=0, rule="must not be negative")


def make_parser(program: str) -> LineParser:
    """The flags of the command; --config and others are left to the configuration."""
    usage = "%(prog)s --config NAME [--config NAME ...] --output FILE [--KEY VALUE ...]"
    parser = LineParser(
        prog=program, usage=usage, description=_HELP, epilog=_MORE, allow_abbrev=False
    )
    add = parser.add_argument
    sheet = f"the sheet: {', '.join(SUFFIXES)}"
    add("--output", type=Path, required=True, metavar="FILE", help=sheet)
    add("--count", type=positive, default=8, metavar="N", help="training samples (8)")
    add("--set", type=one_of("set", SETS), default="both", metavar="NAME", help=", ".join(SETS))
    add("--seed", type=_seed, metavar="N", help="instead of the configuration's data.seed")
    return parser


def _check_output(output: Path) -> None:
    """Refuse a sheet that could not be written in the end."""
    if output.suffix.lower() not in SUFFIXES:
        known = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise CommandError(f"--output {output}: must end in {known}", status=2)
    if output.is_dir():
        raise CommandError(f"--output {output}: is a folder", status=2)
    check_output(output, output.parent)


@command("mrdiff preview")
def main(arguments: list[str], program: str) -> int:
    """Run the command and return its exit status."""
    options, rest = make_parser(program).parse_known_args(arguments)
    _check_output(options.output)
    if rest and not rest[0].startswith("-"):
        raise CommandError(f"unexpected argument {rest[0]} (see --help)", status=2)
    seed = [] if options.seed is None else [f"--data.seed={options.seed}"]
    training = prepare([*rest, *seed, *_HERE])
    set_process_defaults()
    allow_own_classes()
    from mrdiff.cli.preview.run import run_preview  # torch and Lightning: seconds

    return run_preview(options, training)
