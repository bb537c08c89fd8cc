"""The check of ``--device`` before anything is loaded."""

from __future__ import annotations

import torch

from mrdiff.cli.errors import CommandError, one_line

__all__ = ["check_device"]


def check_device(device: str) -> None:
    """Refuse a device that cannot be used; ``auto`` always can.

    Raises:
        CommandError: with the first sentence of torch's reason.
    """
    try:
        if device != "auto":
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = one_line(error).split(". ")[0]
        raise CommandError(f"--device {device}: {reason}", status=2) from error
