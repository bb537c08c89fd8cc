"""Degradations that take together only images that are alike, such as those of one size."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from datamodules.degradations.base import BatchDegradation, Degraded
from datamodules.degradations.packing import Draws, packed


class GroupedDegradation(BatchDegradation):
    """A subclass says what makes images alike, and degrades those that are."""

    @abstractmethod
    def kind(self, draws: Draws) -> Any:
        """What was drawn for an image and must be the same for all that go together."""

    def pack_alike(self, draws: Sequence[Draws]) -> Draws:
        """As :meth:`pack`, for images of one kind."""
        return packed(draws)

    @abstractmethod
    def apply_alike(self, images: Tensor, kind: Any, draws: Draws) -> Degraded:
        """As :meth:`apply`, for images of one kind."""

    def pack(self, draws: Sequence[Draws]) -> Draws:
        alike: dict[Any, list[int]] = {}
        for number, each in enumerate(draws):
            alike.setdefault(self.kind(each), []).append(number)
        return {
            "groups": [
                {
                    "kind": kind,
                    "which": torch.tensor(which),
                    "draws": self.pack_alike([draws[number] for number in which]),
                }
                for kind, which in alike.items()
            ]
        }

    def apply(self, images: Tensor, draws: Draws) -> Degraded:
        groups = draws["groups"]
        if len(groups) == 1:
            return self.apply_alike(images, groups[0]["kind"], groups[0]["draws"])
        lq = torch.empty_like(images)
        mask = torch.empty_like(images[:, :1]) if self.cuts_holes else None
        for group in groups:
            which = group["which"]
            found = self.apply_alike(images[which], group["kind"], group["draws"])
            lq.index_copy_(0, which, found.lq)
            if mask is not None and found.mask is not None:
                mask.index_copy_(0, which, found.mask)
        return Degraded(lq, mask)
