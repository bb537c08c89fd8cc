"""The networks that the flags of a command name: its model, and LPIPS."""

from __future__ import annotations

import argparse

import torch

from mrdiff.checkpoints.reading import Checkpoint, load_model, open_checkpoint
from mrdiff.cli.common.errors import CommandError, one_line
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.metrics import LPIPS, find_lpips_weights

__all__ = ["check_device", "find_lpips", "load_denoiser"]


def check_device(device: str) -> None:
    """Refuse a device that cannot be used, with the first sentence of torch's reason."""
    try:
        if device != "auto":
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = one_line(error).split(". ")[0]
        raise CommandError(f"--device {device}: {reason}", status=2) from error


def load_denoiser(options: argparse.Namespace, *, device: str) -> tuple[Checkpoint, Denoiser]:
    """``--checkpoint`` and its model.

    Raises:
        CommandError: it or the device cannot be used.
    """
    check_device(device)
    try:
        checkpoint = open_checkpoint(options.checkpoint)
        return checkpoint, load_model(checkpoint, device=device, allow=options.allow_package)
    except ValueError as error:
        raise CommandError(str(error), status=2) from error


def find_lpips(options: argparse.Namespace) -> LPIPS | None:
    """LPIPS, if its weights are at hand.

    Raises:
        CommandError: they are not, and ``--metric`` needs them.
    """
    path = find_lpips_weights(options.lpips_weights)
    if path is None and options.metric == "lpips":
        message = "--metric lpips needs AlexNet's features: give --lpips_weights FILE"
        raise CommandError(message, status=2)
    return LPIPS.from_file(path) if path else None
