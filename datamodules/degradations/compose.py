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

import torch
from torch import Tensor

from datamodules.degradations.base import (
    Degradation,
    Degraded,
    MaskedDegradation,
    apply,
    check_limits,
    check_weights,
    to_8_bit,
)
from datamodules.randomness import integer, uniform

_MOST_TIMES = 64


class Composite(MaskedDegradation):
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
    def reach(self) -> int:
        """That of all parts, one after the other."""
        return sum(part.reach for part in self.parts)

    @abstractmethod
    def choose(self, generator: torch.Generator) -> list[Degradation]:
        """The parts that an image undergoes, in this order; all that is random is drawn here."""

    def degrade_with_mask(self, image: Tensor, generator: torch.Generator) -> Degraded:
        chosen = self.choose(generator)
        lq = image if chosen else to_8_bit(image)
        mask = torch.ones_like(image[:1]) if self.cuts_holes else None
        for part in chosen:
            degraded = apply(part, lq, generator)
            lq = degraded.lq
            if mask is not None and degraded.mask is not None:
                mask = mask * degraded.mask
        return Degraded(lq, mask)


class Chain(Composite):
    """One degradation after another; with ``shuffle`` in another order for every image."""

    def __init__(self, stages: list[Degradation], *, shuffle: bool = False) -> None:
        super().__init__(stages, name="stages")
        self.shuffle = shuffle

    def choose(self, generator: torch.Generator) -> list[Degradation]:
        if not self.shuffle:
            return self.parts
        order = torch.randperm(len(self.parts), generator=generator)
        return [self.parts[i] for i in order.tolist()]


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

    def choose(self, generator: torch.Generator) -> list[Degradation]:
        weights = torch.tensor(self.weights, dtype=torch.float64)
        return [self.parts[int(torch.multinomial(weights, 1, generator=generator))]]


class Sometimes(Composite):
    """A degradation that is applied with a probability."""

    def __init__(self, degradation: Degradation, *, probability: float) -> None:
        super().__init__([degradation], name="degradation")
        self.probability = probability
        check_limits("probability", probability, 0, 1)

    def choose(self, generator: torch.Generator) -> list[Degradation]:
        return self.parts if uniform(0, 1, generator) < self.probability else []


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

    def choose(self, generator: torch.Generator) -> list[Degradation]:
        return self.parts * integer(*self.times, generator)
