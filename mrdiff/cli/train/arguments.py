"""Arguments of a training run, made ready for Lightning's command line without torch."""

from __future__ import annotations

import os
import sys

from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.train.recipes import config_names, resolve_config_flags

__all__ = ["SUBCOMMANDS", "allow_own_classes", "prepare"]

SUBCOMMANDS = ("fit", "validate", "test")


def prepare(arguments: list[str]) -> list[str]:
    """The arguments for Lightning's command line: a subcommand first, every config a path.

    Raises:
        CommandError: no configuration at all, or a config that does not exist.
    """
    subcommand = "fit"
    if arguments and arguments[0] in SUBCOMMANDS:
        subcommand, *arguments = arguments
    elif arguments and not arguments[0].startswith("-"):
        names = ", ".join(SUBCOMMANDS)
        raise CommandError(f"unknown command {arguments[0]}: expected one of {names}", status=2)
    resolved = resolve_config_flags(arguments)
    if "--config" not in resolved and not {"--help", "-h"} & set(resolved):
        names = ", ".join(config_names())
        raise CommandError(f"no --config given; shipped recipes: {names}", status=2)
    return [subcommand, *resolved]


def allow_own_classes() -> None:
    """Let configs name classes of modules in the working folder, mine.Rain, as `python -m` does."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
