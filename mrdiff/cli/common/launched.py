"""Which of several processes this one is; free of torch."""

from __future__ import annotations

import os

__all__ = ["is_first"]

# Of Lightning, torchrun and SLURM; all start at 0.
_NUMBERS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


def is_first() -> bool:
    """Whether no launcher says that this process is another than the first."""
    return all(os.environ.get(name, "0") == "0" for name in _NUMBERS)
