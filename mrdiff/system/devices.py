"""Devices, what they compute in, and the processes that share them."""

from __future__ import annotations

import atexit

import torch


def pick_device(device: str) -> torch.device:
    """``auto`` is CUDA, then Apple's GPU, then the CPU; anything else is torch's own name."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def computes_bf16(device: torch.device) -> bool:
    """Whether it multiplies in bfloat16 itself, rather than by a slow detour over float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # ARM's "bf16" is left out until somebody measures it.
    return device.type == "cpu" and _has("avx512_bf16", "amx_bf16")


def computes_in(precision: str, device: torch.device) -> bool:
    """The same for ``tf32``, ``bf16`` or ``fp16``."""
    if precision == "bf16":
        return computes_bf16(device)
    if device.type == "cuda":
        return precision == "fp16" or torch.cuda.get_device_capability(device) >= (8, 0)
    native = device.type == "mps" or (device.type == "cpu" and _has("avx512_fp16", "amx_fp16"))
    return precision == "fp16" and native


def _has(*capabilities: str) -> bool:
    """Whether the CPU has one of them; an older torch does not tell."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(map(found.get, capabilities))


def pick_precision(accelerator: str) -> str:
    """``bf16-mixed`` where a GPU or the CPU computes in bfloat16 itself, else ``32-true``."""
    cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
    native = (cuda or cpu) and computes_bf16(torch.device("cuda" if cuda else "cpu"))
    return "bf16-mixed" if native else "32-true"


def uploaded(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On the device, in time for what is queued there next; nobody waits."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _leave_group() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def leave_group_at_exit() -> None:
    """End the processes' connection, if there is one, before Python ends.

    Lightning does so for GPUs alone. Gloo's threads, where they outlive the interpreter, abort a
    process that had finished its work.
    """
    atexit.register(_leave_group)
