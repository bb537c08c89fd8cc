"""``mrdiff COMMAND``: each command is a module of its own, imported when it is called."""

from __future__ import annotations

import importlib
import sys

import mrdiff
from mrdiff.cli.common.errors import CommandError, did_you_mean, run_command

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "train": "train a model, or validate a checkpoint",
    "doctor": "check configuration, data, memory and time before a long run",
    "prepare": "unpack a benchmark's archives into the folders that training reads",
    "preview": "draw the samples that training will see, and say what is odd about them",
    "sample": "restore a photo or a folder of photos",
    "app": "restore photos on a page in the browser",
    "features": "store what DA-CLIP sees in photos, for sample --context",
    "sweep": "find the best sampler for a checkpoint by trying them on pairs",
    "evaluate": "measure a model on test pairs: quality by task, sampler and network calls",
    "grid": "optimise the times of a sampler for a checkpoint",
    "quantize": "make a checkpoint ready for 8-bit sampling, and tell the loss",
    "convert": "make a checkpoint of an official one of IR-SDE, Refusion or DA-CLIP",
    "export": "write a checkpoint's weights and configuration as plain files",
}


def _help() -> str:
    lines = [f"  {name:8} {text}" for name, text in COMMANDS.items()]
    return "\n".join(["usage: mrdiff COMMAND ... | --version", "", *lines, ""])


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h"):
        print(_help(), end="")
        return 0
    command, *rest = arguments
    if command == "--version":
        print(f"mrdiff {mrdiff.__version__}")
        return 0
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS) or f": use one of {', '.join(COMMANDS)}"
        raise CommandError(f"unknown command {command}{hint}", status=2)
    module = importlib.import_module(f"mrdiff.cli.{command}.command")
    status: int = module.main(rest, program=f"mrdiff {command}")
    return status


def main(arguments: list[str] | None = None) -> int:
    """Run ``mrdiff`` with ``sys.argv`` or the given arguments; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    return run_command(lambda: _dispatch(given), program="mrdiff")
