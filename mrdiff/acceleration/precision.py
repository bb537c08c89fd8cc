"""The numbers in which torch runs a network, chosen for the device and by how it was trained."""

from __future__ import annotations

import torch
from torch import nn

from mrdiff.checkpoints.reading import Checkpoint
from mrdiff.networks.protocol import is_plain
from mrdiff.system.devices import computes_bf16, computes_in
from mrdiff.system.names import PRECISIONS

__all__ = ["PrecisionError", "check_precision", "set_precision", "trained_in"]

_WEIGHTS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class PrecisionError(ValueError):
    """A precision that there is not, or not on this device: one line."""


def trained_in(checkpoint: Checkpoint) -> str:
    """Lightning's name of the precision of its training; ``32-true`` if it does not say."""
    return str(checkpoint.config.get("precision", "32-true"))


def check_precision(name: str, device: torch.device) -> None:
    """Raise PrecisionError unless the device computes in a precision of this name itself."""
    if name not in ("fp32", "int8") and not computes_in(name, device):
        what = "wants a CUDA device of compute capability 8.0 or newer"
        if name != "tf32":
            what = f"would only be emulated on this {device.type.upper()}, a hundred times slower"
        raise PrecisionError(f"precision {name} {what}: use auto or fp32")


def set_precision(
    network: nn.Module,
    name: str = "auto",
    *,
    trained: str = "32-true",
    device: torch.device | None = None,
) -> str:
    """Have a network compute in a precision, in place; returns its name.

    ``bf16`` and ``fp16`` convert the weights. On CUDA torch's switches for TF32, which are those of
    the whole process, are turned off by ``fp32`` and on by all others.

    Args:
        network: for restoring; nothing else in it changes.
        name: ``fp32``, ``tf32``, ``bf16`` or ``fp16``; ``auto`` is on CUDA bf16 for a network of
            mrdiff's that was trained in it, else tf32, and elsewhere fp32.
        trained: Lightning's name of the precision of its training, see :func:`trained_in`.
        device: where it will run; None for where it is.

    Raises:
        PrecisionError: an unknown precision, or the device does not compute in it.
    """
    known = PRECISIONS["torch"]
    if name not in known:
        raise PrecisionError(f"unknown precision {name}: use one of {', '.join(known)}")
    device = device or next(network.parameters()).device
    if name == "auto":
        # Others' networks may take the time through layers that autocast alone keeps exact.
        narrow = trained.startswith("bf16") and computes_bf16(device) and is_plain(network)
        name = ("bf16" if narrow else "tf32") if device.type == "cuda" else "fp32"
    else:
        check_precision(name, device)
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = name != "fp32"
        torch.set_float32_matmul_precision("highest" if name == "fp32" else "high")
    if name in _WEIGHTS:
        network.to(_WEIGHTS[name])
    return name
