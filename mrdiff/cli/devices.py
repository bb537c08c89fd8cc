"""What this machine can compute on, and in which precision."""

from __future__ import annotations

import torch

from mrdiff.cli.errors import CommandError, one_line

__all__ = ["check_device", "pick_precision"]


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


def pick_precision(accelerator: str) -> str:
    """``bf16-mixed`` where a GPU computes in bfloat16 itself, else ``32-true``."""
    wants_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if wants_gpu and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed"
    return "32-true"
