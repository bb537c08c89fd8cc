"""Degradations of degradations: in a chain, one of several, now and then, several times.

They nest. The parts draw from the one generator of the sample, in the order in which they are
applied. Masks are multiplied. Every part rounds to 8 bits, as if its result had been saved.

Stages in random order are those of Zhang et al., "Designing a Practical Degradation Model for Deep
Blind Image Super-Resolution" (ICCV 2021); repeated stages those of Wang et al., "Real-ESRGAN"
(ICCVW 2021).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from datamodules.degradations.base import (
    BatchDegradation,
    Degradation,
    Degraded,
    applied,
    check_limits,
    check_weights,
    to_8_bit,
)
from datamodules.degradations.packing import Draws, Shape
from datamodules.randomness import integer, uniform

_MOST_TIMES = 64


class Composite(BatchDegradation):
    """A degradation made of others: a subclass chooses which of them an image undergoes.

    If any part cuts holes, every picture has a mask: of ones where no such part was chosen.
    ``name`` is what a constructor calls ``parts``, for its errors.
    """

    def __init__(self, parts: Sequence[Degradation], *, name: str) -> None:
        if not parts:
            raise ValueError(f"{name} must hold at least one degradation")
        for part in parts:
            if not isinstance(part, Degradation):
                raise ValueError(f"{name} must be degradations, got {part!r}")
            if part.tasks:
                raise ValueError(f"{name}: {type(part).__name__} names tasks: put it outermost")
        self.parts = list(parts)

    @property
    def cuts_holes(self) -> bool:
        return any(part.cuts_holes for part in self.parts)

    @property
    def on_device(self) -> bool:
        return all(part.on_device for part in self.parts)

    @property
    def reach(self) -> int:
        """That of all parts, one after the other."""
        return sum(part.reach for part in self.parts)

    @abstractmethod
    def choose(self, generator: torch.Generator) -> Sequence[int]:
        """The numbers of the parts that an image undergoes, in this order."""

    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        chosen = self.choose(generator)
        return {"steps": [(part, self.parts[part].draw(generator, shape)) for part in chosen]}

    def pack(self, draws: Sequence[Draws]) -> Draws:
        """Step by step, the images that undergo the same part together."""
        chosen = [each["steps"] for each in draws]
        steps = []
        for step in range(max(map(len, chosen))):
            here = {i: steps[step] for i, steps in enumerate(chosen) if step < len(steps)}
            for part in sorted({part for part, _ in here.values()}):
                which = [i for i in here if here[i][0] == part]
                packed = self.parts[part].pack([here[i][1] for i in which])
                steps.append({"part": part, "which": torch.tensor(which), "draws": packed})
        idle = [i for i, each in enumerate(chosen) if not each]
        return {"idle": torch.tensor(idle, dtype=torch.int64), "steps": steps}

    def apply(self, images: Tensor, draws: Draws) -> Degraded:
        lq, idle = images, draws["idle"]
        if len(idle):  # no part rounds them
            lq = lq.index_copy(0, idle, to_8_bit(lq[idle]))
        mask = torch.ones_like(images[:, :1]) if self.cuts_holes else None
        for step in draws["steps"]:
            lq, mask = self._step(lq, mask, step)
        return Degraded(lq, mask)

    def _step(
        self, lq: Tensor, mask: Tensor | None, step: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        which, part = step["which"], self.parts[step["part"]]
        if len(which) == len(lq):  # which are in order
            found = applied(part, lq, step["draws"])
            held = mask if mask is None or found.mask is None else mask * found.mask
            return found.lq, held
        found = applied(part, lq[which], step["draws"])
        if mask is not None and found.mask is not None:
            mask = mask.index_copy(0, which, mask[which] * found.mask)
        return lq.index_copy(0, which, found.lq), mask


class Chain(Composite):
    """One degradation after another; with ``shuffle`` in another order for every image."""

    def __init__(self, stages: list[Degradation], *, shuffle: bool = False) -> None:
        super().__init__(stages, name="stages")
        self.shuffle = shuffle

    def choose(self, generator: torch.Generator) -> Sequence[int]:
        if not self.shuffle:
            return range(len(self.parts))
        order: list[int] = torch.randperm(len(self.parts), generator=generator).tolist()
        return order


class OneOf(Composite):
    """One of several degradations for every image.

    Args:
        choices: to choose from.
        weights: how often each is chosen, relative to one another; None for equally often.
    """

    def __init__(self, choices: list[Degradation], *, weights: list[float] | None = None) -> None:
        super().__init__(choices, name="choices")
        weights = [1.0] * len(choices) if weights is None else list(weights)
        if len(weights) != len(choices):
            raise ValueError(f"weights must be one a choice: {len(weights)} for {len(choices)}")
        check_weights("weights", weights)
        self.weights = weights

    @property
    def reach(self) -> int:
        return max(part.reach for part in self.parts)

    def choose(self, generator: torch.Generator) -> Sequence[int]:
        weights = torch.tensor(self.weights, dtype=torch.float64)
        return [int(torch.multinomial(weights, 1, generator=generator))]


class Sometimes(Composite):
    """A degradation that is applied with a probability."""

    def __init__(self, degradation: Degradation, *, probability: float) -> None:
        super().__init__([degradation], name="degradation")
        self.probability = probability
        check_limits("probability", probability, 0, 1)

    def choose(self, generator: torch.Generator) -> Sequence[int]:
        return [0] if uniform(0, 1, generator) < self.probability else []


class Repeat(Composite):
    """A degradation several times over, each time drawn anew.

    Args:
        degradation: what is repeated.
        times: how often, both ends included; 0 leaves the image as it is.
    """

    def __init__(self, degradation: Degradation, *, times: tuple[int, int]) -> None:
        super().__init__([degradation], name="degradation")
        self.times = times
        check_limits("times", times, 0, _MOST_TIMES)

    @property
    def reach(self) -> int:
        return self.times[1] * super().reach

    def choose(self, generator: torch.Generator) -> Sequence[int]:
        return [0] * integer(*self.times, generator)
