"""How much memory there is, how much was used at most, and what running out of it looks like."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_GROUP = Path("/sys/fs/cgroup")
# What torch, its allocator on the CPU, and oneDNN say; none has a class of its own.
_WORDS = (
    *("not enough memory", "can't allocate memory", "DefaultCPUAllocator", "bad_alloc"),
    "could not create a primitive",
)


def is_out_of_memory(failure: BaseException) -> bool:
    """Whether this is what an allocation that fails ends in."""
    if isinstance(failure, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(failure, RuntimeError) and any(word in str(failure) for word in _WORDS)


def _kilobytes(file: Path, key: str) -> int | None:
    """A line ``key:  123 kB`` of a file of /proc in bytes; None where there is no such."""
    try:
        lines = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
        return int(lines[key].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _group_room() -> int | None:
    """What a container's limit leaves, in bytes; files in its cache count as free."""
    try:
        limit = int((_GROUP / "memory.max").read_text())
        used = int((_GROUP / "memory.current").read_text())
        lines = (_GROUP / "memory.stat").read_text().splitlines()
        return limit - used + int(dict(line.split() for line in lines)["inactive_file"])
    except (OSError, KeyError, ValueError):  # no control groups here, or the limit is "max"
        return None


def available(device: torch.device) -> int | None:
    """Free bytes of the device's memory; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    rooms = (_kilobytes(Path("/proc/meminfo"), "MemAvailable"), _group_room())
    return min((room for room in rooms if room is not None), default=None)


def forget_peak(device: torch.device) -> None:
    """Let :func:`peak` count from now, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        _FORGET.write_text("5")


def peak(device: torch.device) -> int | None:
    """The most bytes in use: of the GPU by tensors, else of this process; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    resident = _kilobytes(_STATUS, "VmHWM")
    if resident is not None:
        return resident
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextlib.contextmanager
def limited(device: torch.device, *, most: int | None = None) -> Iterator[None]:
    """Let allocations on the CPU fail where the system would rather kill this process.

    The limit is what is in use and what is free, or ``most`` more bytes, where the system says so.
    """
    room, used = available(device) if most is None else most, _kilobytes(_STATUS, "VmData")
    if device.type != "cpu" or room is None or used is None:
        yield
        return
    import resource  # there is one where there is /proc

    before = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = used + max(room, 0)
    if before[1] != resource.RLIM_INFINITY:
        allowed = min(allowed, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
