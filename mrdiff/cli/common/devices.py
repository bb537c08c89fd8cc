"""What this machine can compute on, by what and in which precision."""

from __future__ import annotations

import argparse

import torch

from mrdiff.acceleration.backends import OpenVINONetwork, use_inductor
from mrdiff.acceleration.ranges import read_ranges
from mrdiff.cli.common.errors import CommandError, one_line
from mrdiff.diffusion.denoiser import Denoiser

__all__ = ["check_device", "speed_up"]


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


def speed_up(options: argparse.Namespace, denoiser: Denoiser) -> None:
    """Have the network run by what ``--compile`` or ``--backend`` say.

    Raises:
        BackendError: it is not there, or does not work on this machine.
        CheckpointError: it has no 8-bit ranges, which ``--precision int8`` needs.
        RangeError: they are of another network.
    """
    if options.compile:
        use_inductor(denoiser.network)
    if options.backend == "openvino":
        precision = options.precision or "f32"
        ranges = read_ranges(options.checkpoint) if precision == "int8" else None
        network = OpenVINONetwork(denoiser.network, precision=precision, ranges=ranges)
        denoiser.network = network
