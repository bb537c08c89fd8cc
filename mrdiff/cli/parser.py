"""An argparse parser whose errors are one line, with the closest flag for a mistyped one."""

from __future__ import annotations

import argparse
from typing import NoReturn

from mrdiff.cli.errors import CommandError, did_you_mean

__all__ = ["LineParser", "positive"]


class LineParser(argparse.ArgumentParser):
    """Raises :class:`CommandError` with status 2 instead of printing a usage dump and exiting."""

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """Parse all of ``arguments``.

        Raises:
            CommandError: an unknown, missing or wrong argument.
        """
        # Left-overs are taken first: "unknown --inptu" helps more than "--input is required".
        known = [flag for action in self._actions for flag in action.option_strings]
        for argument in arguments:
            flag = argument.split("=")[0]
            if flag.startswith("--") and not any(k.startswith(flag) for k in known):
                raise CommandError(f"unknown option {flag}{did_you_mean(flag, known)}", status=2)
        return self.parse_args(arguments)

    def error(self, message: str) -> NoReturn:
        """Raise ``message``; argparse calls this."""
        raise CommandError(f"{message} (see --help)", status=2)


def positive(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value
