"""Standard output and error that never end a run: what they do not take is lost, not the work."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

__all__ = ["lasting_streams"]


class _Lasting(io.RawIOBase):
    """Takes all that is written and remembers the first error of the stream below it.

    That is None where the command was started without one (``>&-``).
    """

    def __init__(self, below: io.RawIOBase | None) -> None:
        self._below = below
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._below is not None and self._below.isatty()

    def fileno(self) -> int:
        if self._below is None:
            raise io.UnsupportedOperation("fileno")
        return self._below.fileno()

    def write(self, content: Any) -> int:
        rest = memoryview(content)
        while rest and self.failure is None:
            try:
                if self._below is None:
                    raise OSError(errno.EBADF, "it is closed")
                rest = rest[self._below.write(rest) or 0 :]
            except OSError as error:
                self.failure = error
        return memoryview(content).nbytes


def _occupy() -> None:
    """No file that is written may get the number of a standard stream that is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free


def _wrapped(stream: TextIO | None) -> tuple[TextIO, _Lasting | None]:
    """``stream`` as one that lasts and that shows every character; a notebook's stays."""
    buffer = getattr(stream, "buffer", None)
    below = getattr(buffer, "raw", buffer)
    if stream is not None and not isinstance(below, io.RawIOBase):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        return stream, None
    lasting = _Lasting(below)
    text = io.TextIOWrapper(
        io.BufferedWriter(lasting),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="backslashreplace",
        # The second is that of an unbuffered stream (PYTHONUNBUFFERED).
        line_buffering=any(getattr(stream, n, False) for n in ("line_buffering", "write_through")),
    )
    return text, lasting


@contextlib.contextmanager
def lasting_streams() -> Iterator[Callable[[], OSError | None]]:
    """Put such streams in the places of ``sys.stdout`` and ``sys.stderr``.

    Gives a function that says why something of standard output was lost, or None.
    """
    _occupy()
    before = sys.stdout, sys.stderr
    for stream in before:
        if stream is not None:
            stream.flush()
    output, lasting = _wrapped(sys.stdout)
    sys.stdout, sys.stderr = output, _wrapped(sys.stderr)[0]

    def failure() -> OSError | None:
        output.flush()
        return None if lasting is None else lasting.failure

    try:
        yield failure
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
