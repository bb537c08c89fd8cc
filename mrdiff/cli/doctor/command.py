"""``mrdiff doctor``: what would ruin a long run, found before it."""

from __future__ import annotations

from mrdiff.cli.common.errors import CommandError, command
from mrdiff.cli.common.parser import LineParser, allow_own_classes
from mrdiff.cli.train.arguments import prepare
from mrdiff.system.cores import set_process_defaults

_HELP = """\
Check a training run before it is started: the configuration, every image file, pictures that are
in training and validation alike, disk space, device and precision; then a few real training steps
and the restoration of the largest validation image, with their time and memory. Prints what is
wrong with its cure, and how long the run will take. Nothing is written.
"""
_MORE = """\
Configs and overrides, --data.root DIR and the like, are those of training. The exit status is 1
if there is any error, and 0 otherwise; warnings do not count.
"""


def make_parser(program: str) -> LineParser:
    """The flags of the command; --config and others are left to the configuration."""
    usage = "%(prog)s --config NAME [--config NAME ...] [--quick] [--KEY VALUE ...]"
    parser = LineParser(
        prog=program, usage=usage, description=_HELP, epilog=_MORE, allow_abbrev=False
    )
    text = "read the headers of the image files alone: no pixels, no search for duplicates"
    parser.add_argument("--quick", action="store_true", help=text)
    return parser


@command("mrdiff doctor")
def main(arguments: list[str], program: str) -> int:
    """Run the command and return its exit status."""
    options, rest = make_parser(program).parse_known_args(arguments)
    if rest and not rest[0].startswith("-"):
        raise CommandError(f"unexpected argument {rest[0]} (see --help)", status=2)
    training = prepare(rest)
    set_process_defaults()
    allow_own_classes()
    from mrdiff.cli.doctor.run import run_doctor  # torch and Lightning: seconds

    return run_doctor(training, quick=options.quick)
