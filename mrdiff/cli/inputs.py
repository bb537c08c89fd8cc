"""Whether the files that a command reads are there, before torch is imported."""

from __future__ import annotations

import argparse

from mrdiff.cli.errors import CommandError

__all__ = ["check_inputs"]


def check_inputs(options: argparse.Namespace) -> None:
    """Refuse a checkpoint, stored features or folders beside the photos that are not there.

    Raises:
        CommandError: one line that names the flag.
    """
    if not options.checkpoint.exists():
        raise CommandError(f"no checkpoint at {options.checkpoint}", status=2)
    for flag in ("daclip", "context"):
        file = getattr(options, flag)
        if file is not None and not file.is_file():
            raise CommandError(f"--{flag} {file}: no such file", status=2)
    for flag in ("reference", "mask"):
        folder = getattr(options, flag)
        if folder is not None and not folder.is_dir():
            raise CommandError(f"--{flag} {folder}: no such folder", status=2)
