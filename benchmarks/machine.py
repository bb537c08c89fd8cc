"""The machine that a benchmark ran on, in words."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from mrdiff.system.cores import available_cores


def machine() -> str:
    """Such as ``2 cores of an AMD EPYC (AVX512, bf16), torch 2.13.0+cpu``, and the GPU, if any."""
    cores, found = available_cores(), torch.backends.cpu.get_cpu_capability()
    bf16 = ", bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else ""
    name = f"{cores} core{'s' * (cores > 1)} of an {_processor()} ({found}{bf16})"
    if torch.cuda.is_available():
        name += f", {torch.cuda.get_device_name()}"
    return f"{name}, torch {torch.__version__}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
