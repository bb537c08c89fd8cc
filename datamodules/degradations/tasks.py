"""Several degradations under their names, for one model that undoes all of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from datamodules.degradations.base import Degradation, Spoilt
from datamodules.randomness import integer


class Tasks(Degradation):
    """One of several named degradations, drawn for each image; the sample says which.

    Outside training a dataset shows every photo under each of them in turn.

    Args:
        kinds: degradations by the names of their tasks; the order numbers them.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, kinds: Mapping[str, Degradation]) -> None:
        if not kinds:
            raise ValueError("kinds must hold at least one degradation")
        self.kinds = dict(kinds)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names, in the order of their numbers."""
        return tuple(self.kinds)

    @property
    def reach(self) -> int:
        """The farthest."""
        return max(kind.reach for kind in self.kinds.values())

    def reach_of(self, task: int) -> int:
        """That of one kind."""
        return list(self.kinds.values())[task].reach

    @property
    def cuts_holes(self) -> bool:
        """Whether there are masks: if one kind has them, all samples do."""
        return any(kind.cuts_holes for kind in self.kinds.values())

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """One kind, drawn with equal chances."""
        return self.spoil(image, generator).lq

    def spoil(self, image: Tensor, generator: torch.Generator) -> Spoilt:
        """The same with the number of the kind, and a mask if any kind has one."""
        return self.spoil_by(integer(0, len(self.kinds) - 1, generator), image, generator)

    def spoil_by(self, task: int, image: Tensor, generator: torch.Generator) -> Spoilt:
        """The kind of number ``task`` alone."""
        lq, mask, _ = list(self.kinds.values())[task].spoil(image, generator)
        if mask is None and self.cuts_holes:
            mask = torch.ones_like(image[:1])
        return Spoilt(lq, mask, task)
