"""What this machine can compute on, by what and in which precision."""

from __future__ import annotations

import argparse
import atexit

import torch

from mrdiff.backends import OpenVINONetwork, computes_bf16, use_inductor
from mrdiff.cli.errors import CommandError, one_line
from mrdiff.denoiser import Denoiser
from mrdiff.quantization import read_ranges

__all__ = ["check_device", "leave_group_at_exit", "pick_precision", "speed_up"]


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
    """``bf16-mixed`` where a GPU or the CPU computes in bfloat16 itself, else ``32-true``."""
    cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    native = (cuda or cpu) and computes_bf16(torch.device("cuda" if cuda else "cpu"))
    return "bf16-mixed" if native else "32-true"


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


def _leave_group() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def leave_group_at_exit() -> None:
    """End the processes' connection, if there is one, before Python ends.

    Lightning does so for GPUs alone. Gloo's threads, where they outlive the interpreter, abort a
    process that had finished its work.
    """
    atexit.register(_leave_group)
