"""Several degradations under their names, for one model that undoes all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from datamodules.degradations.base import Degradation
from datamodules.degradations.compose import Composite
from datamodules.randomness import integer


class Tasks(Composite):
    """One of several named degradations, drawn for each image; the sample says which.

    Outside training a dataset shows every photo under each of them in turn. ``kinds`` are
    degradations by the names of their tasks; their order numbers them.
    """

    def __init__(self, kinds: Mapping[str, Degradation]) -> None:
        super().__init__([*kinds.values()], name="kinds")
        self.kinds = dict(kinds)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.kinds)

    @property
    def reach(self) -> int:
        return max(part.reach for part in self.parts)

    def of_task(self, task: int | None) -> Degradation:
        return self if task is None else self.parts[task]

    def choose(self, generator: torch.Generator) -> Sequence[int]:
        """One kind, with equal chances."""
        return [integer(0, len(self.parts) - 1, generator)]
