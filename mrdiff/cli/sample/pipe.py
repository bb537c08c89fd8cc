"""One photo through the command like through a pipe."""

from __future__ import annotations

import sys
from pathlib import Path

from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.paths import PIPE
from mrdiff.networks.protocol import Context
from mrdiff.photo import FORMATS, encode_photo, like_original, read_photo, to_rgb
from mrdiff.restoration.restorer import Restorer
from mrdiff.system.text import shown

__all__ = ["restore_pipe"]


def restore_pipe(
    restorer: Restorer, source: Path, *, name: str, features: Context, suffix: str | None
) -> None:
    """Restore a file, or standard input for ``-``; only the content goes to standard output.

    ``suffix`` is that of a format, one of ``FORMATS``; None takes the photo's own. A photo that is
    no photo is a PhotoError, a format that cannot hold it a CommandError.
    """
    piped = source == PIPE
    if piped and sys.stdin is None:
        raise CommandError("--input -: standard input is closed")
    content = sys.stdin.buffer.read() if piped else source
    photo = read_photo(content, name="standard input" if piped else "")
    kind = FORMATS[suffix] if suffix else photo.kind
    if kind not in FORMATS.values():
        kind = "PNG"
    restored = restorer.restore(to_rgb(photo.image)[None], [name], features=[features])[0]
    image, notes = like_original(restored, photo.image), list(photo.notes)
    try:
        encoded = encode_photo(image, kind, photo, on_loss=notes.append)
    except ValueError as error:
        raise CommandError(f"--output -: {error}") from error
    for note in notes:
        print(f"note: {shown(note)}", file=sys.stderr)
    sys.stdout.buffer.write(encoded)
    sys.stdout.buffer.flush()
