"""What must stand before torch is imported: threads and memory.

OpenMP threads that wait actively collapse when other processes want the same cores, and threads
that go to sleep at once are slow to wake when nobody does. Hence, unless the user has set them,
``OMP_WAIT_POLICY=PASSIVE`` (waiting threads sleep), ``GOMP_SPINCOUNT=1000`` (but only after some
microseconds) and ``OMP_NUM_THREADS`` = the cores this process may really use: its affinity mask
and its container's CPU quota, not the host's count. ``benchmarks/threads.py`` measures them.

glibc gives large blocks back to the system when they are freed and asks for new ones, each page of
which the system clears at its first use. Here it keeps them (``benchmarks/official_nets.py``).
"""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path


def _quota_cores(folder: Path) -> float:
    """The CPU quota of a version-2 or version-1 control group in cores; inf without one."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()[:2]
        else:
            quota = (folder / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu" / "cpu.cfs_period_us").read_text().strip()
        return float(quota) / float(period) if float(quota) > 0 else float("inf")
    except (OSError, ValueError):  # no control groups here, or quota "max"
        return float("inf")


def available_cores(*, cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, int(min(cores, _quota_cores(cgroup))))


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks, up to 2 GB, unless the user has set it; whether it does."""
    own = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if own or platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
    return all(library.mallopt(name, value) == 1 for name, value in settings.items())


def set_process_defaults() -> None:
    """Set what the user has not set. Call before torch is imported."""
    keep_freed_memory()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))
