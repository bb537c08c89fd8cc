"""An argparse parser with one-line errors that name the closest flag, and types of arguments."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import NoReturn

from mrdiff.checkpoints.places import BUNDLED, PlaceError, find_model
from mrdiff.cli.common.errors import CommandError, did_you_mean
from mrdiff.system.names import PROTOCOLS, SAMPLERS

__all__ = [
    "LineParser",
    "allow_own_classes",
    "as_crop",
    "as_path",
    "as_temperature",
    "bounded",
    "one_of",
    "positive",
    "whole",
]


class LineParser(argparse.ArgumentParser):
    """Raises :class:`CommandError` with status 2 instead of printing a usage dump and exiting."""

    def parse(self, arguments: list[str], *, mixed: bool = False) -> argparse.Namespace:
        """Parse all of ``arguments``; an unknown, missing or wrong one is a CommandError.

        ``mixed`` lets those without a flag stand anywhere among the others; none of them is ``--``.
        """
        # Left-overs are taken first: "unknown --inptu" helps more than "--input is required".
        known = [flag for action in self._actions for flag in action.option_strings]
        for argument in takewhile(lambda argument: argument != "--", arguments):
            flag = argument.split("=")[0]
            if flag.startswith("--") and not any(k.startswith(flag) for k in known):
                raise CommandError(f"unknown option {flag}{did_you_mean(flag, known)}", status=2)
        parse = self.parse_intermixed_args if mixed else self.parse_args
        options = parse(arguments)
        if getattr(options, "allow_package", None):
            allow_own_classes()
        return options

    def add_checkpoint(
        self, group: argparse._ArgumentGroup | None = None, *, bundled: bool = False
    ) -> None:
        """Add the model's flag; without it the ``bundled`` model is taken, if a command wants."""
        known = f".ckpt, exported folder, hf://ORG/NAME, or {BUNDLED.name}"
        (group or self).add_argument(
            "--checkpoint",
            type=_as_model,
            required=not bundled,
            default=BUNDLED if bundled else None,
            metavar="MODEL",
            help=f"{known} (that)" if bundled else known,
        )

    def add_input(
        self,
        group: argparse._ArgumentGroup | None = None,
        *,
        metavar: str,
        help: str,
        required: bool = True,
    ) -> None:
        """Add the flag for one or several photos or folders, which may be given again."""
        (group or self).add_argument(
            "--input",
            type=as_path,
            nargs="+",
            action="extend",
            required=required,
            default=None if required else [],
            metavar=metavar,
            help=help,
        )

    def add_sampler(self, group: argparse._ArgumentGroup | None = None) -> None:
        """Add the flags of a sampler that the checkpoint has a default for."""
        add = (group or self).add_argument
        names = f"{', '.join(SAMPLERS)} (the checkpoint's, or mr-ode-2)"
        add("--sampler", type=one_of("sampler", SAMPLERS), metavar="NAME", help=names)
        calls = "network calls a photo (the checkpoint's, or 5)"
        add("--nfe", type=positive, metavar="N", help=calls)

    def add_allow_package(self, group: argparse._ArgumentGroup | None = None) -> None:
        """Add the flag of every command that builds a checkpoint's model."""
        trust = "also build classes of this package that the checkpoint names; only if you trust it"
        add = (group or self).add_argument
        add("--allow_package", action="append", default=[], metavar="NAME", help=trust)

    def add_protocol(self, group: argparse._ArgumentGroup) -> None:
        """Add the flag of how PSNR and SSIM are measured."""
        ways = "standard, or ir-sde: a pixel less at each side, as its test scripts (standard)"
        known = one_of("protocol", PROTOCOLS)
        group.add_argument("--protocol", type=known, default="standard", metavar="NAME", help=ways)

    def error(self, message: str) -> NoReturn:
        """Raise ``message``; argparse calls this."""
        raise CommandError(f"{message} (see --help)", status=2)


def allow_own_classes() -> None:
    """Let configs and checkpoints name classes of modules in the working folder, ``mine.Rain``.

    It is searched last: a ``torch.py`` there shadows nothing.
    """
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())


def as_path(text: str) -> Path:
    """A path; not of an empty text, as which a shell has a variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path: is a variable not set?")
    return Path(text)


def _as_model(text: str) -> Path:
    as_path(text)
    try:
        return find_model(text)
    except PlaceError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def whole(text: str, *, least: int, most: float = math.inf, rule: str) -> int:
    """An integer within both bounds; ``rule`` is the message for one that is not."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{rule}, a whole number, got {text}") from None
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{rule}, got {text}")
    return value


positive = partial(whole, least=1, rule="must be at least 1")
# LPIPS has nothing left of less than 32 pixels.
as_crop = partial(whole, least=32, rule="crop must be at least 32 px")


def one_of(kind: str, known: Sequence[str]) -> Callable[[str], str]:
    """An argparse type: one of ``known``; errors call it an unknown ``kind``."""

    def check(text: str) -> str:
        if text not in known:
            hint = did_you_mean(text, known) or f": use one of {', '.join(known)}"
            raise argparse.ArgumentTypeError(f"unknown {kind} {text}{hint}")
        return text

    return check


def bounded(text: str, *, least: float, most: float, rule: str) -> float:
    """A number within both bounds; ``rule`` is the message for any other text."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{rule}, got {text}")
    return value


as_temperature = partial(bounded, least=0, most=1, rule="temperature lies in [0, 1]")
