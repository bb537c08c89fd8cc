"""One clear line on stderr and an exit status, instead of a usage dump or a traceback.

Status 2: the command or its configuration is wrong. Status 1: it failed while running.
``MRDIFF_DEBUG=1`` in the environment shows the whole traceback.
"""

from __future__ import annotations

import difflib
import functools
import os
import sys
from collections.abc import Callable, Iterable
from typing import Protocol

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
    """``message`` with every run of white space as one blank."""
    return " ".join(str(message).split())


def is_expected(error: BaseException) -> bool:
    """Whether ``error`` explains itself: ours, or a file system's error that names a file.

    Ours are known by their package, so that torch need not be imported for their classes.
    """
    if isinstance(error, CommandError):
        return True
    if isinstance(error, OSError):
        return error.filename is not None
    return type(error).__module__.split(".")[0] in _OWN_PACKAGES


def run_command(command: Callable[[], int | None], *, program: str) -> int:
    """Run ``command`` and return the exit status; expected errors become one line on stderr."""
    try:
        return command() or 0
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `… | head`: the reader has gone, there is no one to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if os.environ.get("MRDIFF_DEBUG") == "1" or not is_expected(error):
            raise
        message = str(error)
        if isinstance(error, OSError):
            message = f"{error.filename}: {error.strerror}"
        print(f"{program}: error: {one_line(message)}", file=sys.stderr)
        return error.status if isinstance(error, CommandError) else 1


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
