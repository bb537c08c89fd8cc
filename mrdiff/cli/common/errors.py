"""One clear line on stderr and an exit status, instead of a usage dump or a traceback.

Status 2: the command or its configuration is wrong. Status 1: it failed while running.
``MRDIFF_DEBUG=1`` in the environment shows the whole traceback.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from mrdiff.cli.common.streams import lasting_streams
from mrdiff.system.text import shown

__all__ = ["CommandError", "command", "did_you_mean", "is_expected", "one_line", "run_command"]

_OWN_PACKAGES = ("mrdiff", "datamodules", "callbacks")


class CommandError(Exception):
    """A failure the user can mend: one line for stderr and the exit ``status``."""

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` with the closest of ``known``, or the empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def one_line(message: object) -> str:
    """``message`` with every run of white space as one blank, see :func:`shown` for the rest."""
    return shown(" ".join(str(message).split()))


def is_expected(error: BaseException) -> bool:
    """Whether ``error`` explains itself: ours, or a file system's error that names a file.

    Ours are known by their package, so that torch need not be imported for their classes.
    """
    if isinstance(error, CommandError):
        return True
    if isinstance(error, OSError):
        return error.filename is not None
    return type(error).__module__.split(".")[0] in _OWN_PACKAGES


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the command as an exception: what is half-written goes."""

    def leave(*_: object) -> None:
        raise SystemExit(143)

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _status(command: Callable[[], int | None], program: str) -> int:
    try:
        return command() or 0
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("MRDIFF_DEBUG") == "1" or not is_expected(error):
            raise
        message = one_line(error)
        if isinstance(error, OSError):
            message = f"{shown(error.filename)}: {error.strerror}"
        print(f"{program}: error: {message}", file=sys.stderr)
        return error.status if isinstance(error, CommandError) else 1


def run_command(command: Callable[[], int | None], *, program: str) -> int:
    """Run ``command`` and return the exit status; expected errors become one line on stderr.

    What standard output or error does not take stops nothing; of the output the status says it.
    """
    with lasting_streams() as failure_of_output, _terminable():
        status = _status(command, program)
        lost = failure_of_output()
        if lost is None:
            return status
        if isinstance(lost, BrokenPipeError):  # `… | head`: the reader has gone, on purpose
            return status or 141
        print(f"{program}: error: standard output: {lost.strerror}", file=sys.stderr)
        return status or 1


class Main(Protocol):
    """Runs a command and returns its exit status."""

    def __call__(self, arguments: list[str], *, program: str = ...) -> int: ...


def command(program: str) -> Callable[[Callable[[list[str], str], int | None]], Main]:
    """Make a function of the arguments and of the program's name the ``main`` of a command."""

    def wrap(work: Callable[[list[str], str], int | None]) -> Main:
        @functools.wraps(work)
        def main(arguments: list[str], *, program: str = program) -> int:
            return run_command(lambda: work(arguments, program), program=program)

        return main

    return wrap
