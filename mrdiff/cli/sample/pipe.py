"""One photo through the command like through a pipe: ``-`` is standard input and output."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from mrdiff.cli.common.errors import CommandError
from mrdiff.photo import FORMATS, encode_photo, like_original, read_photo, to_rgb
from mrdiff.restoration.restorer import Restorer

__all__ = ["PIPE", "is_piped", "run_piped"]

PIPE = Path("-")
_FOR_FILES = ("reference", "mask", "compare", "trajectory", "skip_existing", "log")


def is_piped(options: argparse.Namespace) -> bool:
    """Whether ``--input`` or ``--output`` is ``-``.

    Raises:
        CommandError: with a flag that is about files.
    """
    if PIPE not in (options.input, options.output):
        return False
    wrong = [name for name in _FOR_FILES if getattr(options, name)]
    wrong += ["samples"] if options.samples > 1 else []
    if wrong:
        raise CommandError(f"--{wrong[0]} is for files, not for a pipe: leave it out", status=2)
    if options.output != PIPE or options.input.is_dir():
        raise CommandError("a pipe takes one photo: --input -|FILE --output -", status=2)
    return True


def run_piped(options: argparse.Namespace, make: Callable[[argparse.Namespace], Restorer]) -> int:
    """Restore one photo; nothing but the file's content is written to standard output.

    Raises:
        CommandError: standard output is a terminal.
        PhotoError: it cannot be read, or its format cannot hold it.
    """
    if sys.stdout.isatty():
        raise CommandError("--output -: redirect standard output to a file or a pipe", status=2)
    piped = options.input == PIPE
    source = sys.stdin.buffer.read() if piped else options.input
    photo = read_photo(source, name="standard input" if piped else "")
    kind = FORMATS[f".{options.format}"] if options.format else photo.kind
    if kind not in FORMATS.values():
        kind = "PNG"
    rgb = to_rgb(photo.image)[None]
    name = "stdin" if piped else options.input.stem
    restored = make(options).restore(rgb, [name])[0]
    content = encode_photo(like_original(restored, photo.image), kind, photo)
    for note in photo.notes:
        print(f"note: {note}", file=sys.stderr)
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
    return 0
