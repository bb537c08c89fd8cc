"""Several degradations under their names, for one model that undoes all of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from datamodules.degradations.base import Degradation, Degraded, MaskedDegradation, apply
from datamodules.randomness import integer


class Tasks(MaskedDegradation):
    """One of several named degradations, drawn for each image; the sample says which.

    Outside training a dataset shows every photo under each of them in turn. ``kinds`` are
    degradations by the names of their tasks; their order numbers them.
    """

    def __init__(self, kinds: Mapping[str, Degradation]) -> None:
        if not kinds:
            raise ValueError("kinds must hold at least one degradation")
        self.kinds = dict(kinds)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.kinds)

    @property
    def reach(self) -> int:
        return max(kind.reach for kind in self.kinds.values())

    def reach_of(self, task: int) -> int:
        return list(self.kinds.values())[task].reach

    @property
    def cuts_holes(self) -> bool:
        return any(kind.cuts_holes for kind in self.kinds.values())

    def degrade_with_mask(self, image: Tensor, generator: torch.Generator) -> Degraded:
        """One kind, drawn with equal chances; with a mask if any kind has one."""
        return self.degrade_by(integer(0, len(self.kinds) - 1, generator), image, generator)

    def degrade_by(self, task: int, image: Tensor, generator: torch.Generator) -> Degraded:
        """The kind of number ``task`` alone."""
        lq, mask, _ = apply(list(self.kinds.values())[task], image, generator)
        if mask is None and self.cuts_holes:
            mask = torch.ones_like(image[:1])
        return Degraded(lq, mask, task)
