"""Whether the files that a command reads are there, before torch is imported."""

from __future__ import annotations

import argparse
from pathlib import Path

from mrdiff.cli.common.errors import CommandError

__all__ = ["check_inputs"]


def check_inputs(options: argparse.Namespace, *, pipe: Path | None = None) -> None:
    """Refuse a checkpoint, photos, stored features or folders beside the photos that are missing.

    Args:
        options: of a command with ``--checkpoint`` and ``--input``; of the others, those it has.
        pipe: an ``--input`` that is no file.

    Raises:
        CommandError: one line that names the flag.
    """
    if not options.checkpoint.exists():
        raise CommandError(f"no checkpoint at {options.checkpoint}", status=2)
    if not options.input.exists() and options.input != pipe:
        raise CommandError(f"--input {options.input}: no such file or folder", status=2)
    for flag in ("daclip", "context"):
        file = getattr(options, flag, None)
        if file is not None and not file.is_file():
            raise CommandError(f"--{flag} {file}: no such file", status=2)
    for flag in ("reference", "mask"):
        folder = getattr(options, flag, None)
        if folder is not None and not folder.is_dir():
            raise CommandError(f"--{flag} {folder}: no such folder", status=2)
