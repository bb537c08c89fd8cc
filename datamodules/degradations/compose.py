"""Degradations of degradations: in a chain, one of several, now and then, several times.

Each is a :class:`Degradation`, so they nest, in Python and in YAML. The parts draw from the one
generator of the sample, in the order in which they are applied. A pixel is kept where every part
kept it: masks are multiplied. Every part rounds to 8 bits, as if its result had been saved.

Synthesis by stages in random order is that of Zhang et al., "Designing a Practical Degradation
Model for Deep Blind Image Super-Resolution" (ICCV 2021); repeated stages are those of Wang et al.,
"Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data" (ICCVW 2021).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from datamodules.degradations.base import Degradation, Spoilt, check_range, to_8_bit
from datamodules.randomness import integer, uniform

_MOST_TIMES = 64


class Composite(Degradation):
    """A degradation made of others: a subclass chooses which of them an image undergoes.

    If any part cuts holes, every picture has a mask: of ones where no such part was chosen.

    Args:
        parts: at least one.
        name: what a constructor calls them, for its errors.

    Raises:
        ValueError: no parts, something that is not a degradation, or one that names tasks, of
            which a picture has one.
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
        """Whether any of the parts does."""
        return any(part.cuts_holes for part in self.parts)

    @property
    def reach(self) -> int:
        """As if an image underwent all of them, one after the other."""
        return sum(part.reach for part in self.parts)

    @abstractmethod
    def choose(self, generator: torch.Generator) -> list[Degradation]:
        """The parts that an image undergoes, in this order; all that is random is drawn here."""

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """See :meth:`Degradation.degrade`."""
        return self.spoil(image, generator).lq

    def spoil(self, image: Tensor, generator: torch.Generator) -> Spoilt:
        """See :meth:`Degradation.spoil`."""
        chosen = self.choose(generator)
        lq = image if chosen else to_8_bit(image)
        mask = torch.ones_like(image[:1]) if self.cuts_holes else None
        for part in chosen:
            spoilt = part.spoil(lq, generator)
            lq = spoilt.lq
            if mask is not None and spoilt.mask is not None:
                mask = mask * spoilt.mask
        return Spoilt(lq, mask)


class Chain(Composite):
    """One degradation after another.

    Args:
        stages: what an image undergoes, first to last.
        shuffle: in another order for every image.

    Raises:
        ValueError: no stages, or one that is not a degradation.
    """

    def __init__(self, stages: list[Degradation], *, shuffle: bool = False) -> None:
        super().__init__(stages, name="stages")
        self.shuffle = shuffle

    def choose(self, generator: torch.Generator) -> list[Degradation]:
        """All stages."""
        if not self.shuffle:
            return self.parts
        order = torch.randperm(len(self.parts), generator=generator)
        return [self.parts[i] for i in order.tolist()]


class OneOf(Composite):
    """One of several degradations for every image.

    Args:
        choices: to choose from.
        weights: how often each is chosen, relative to one another; null for equally often.

    Raises:
        ValueError: no choices, one that is not a degradation, or weights that are not one a
            choice, at least 0 and not all 0.
    """

    def __init__(self, choices: list[Degradation], *, weights: list[float] | None = None) -> None:
        super().__init__(choices, name="choices")
        if weights is None:
            weights = [1.0] * len(choices)
        if len(weights) != len(choices):
            raise ValueError(f"weights must be one a choice: {len(weights)} for {len(choices)}")
        if not (all(weight >= 0 for weight in weights) and 0 < sum(weights) < math.inf):
            raise ValueError(f"weights must be at least 0 and not all 0, got {weights}")
        self.weights = list(weights)

    @property
    def reach(self) -> int:
        """The farthest."""
        return max(part.reach for part in self.parts)

    def choose(self, generator: torch.Generator) -> list[Degradation]:
        """One of the choices."""
        weights = torch.tensor(self.weights, dtype=torch.float64)
        return [self.parts[int(torch.multinomial(weights, 1, generator=generator))]]


class Sometimes(Composite):
    """A degradation that some images are spared.

    Args:
        degradation: what the others undergo.
        probability: how often it is applied.

    Raises:
        ValueError: not a degradation, or a probability outside [0, 1].
    """

    def __init__(self, degradation: Degradation, *, probability: float) -> None:
        super().__init__([degradation], name="degradation")
        check_range("probability", (0.0, probability), 0, 1)
        self.probability = probability

    def choose(self, generator: torch.Generator) -> list[Degradation]:
        """The degradation or nothing."""
        return self.parts if uniform(0, 1, generator) < self.probability else []


class Repeat(Composite):
    """A degradation several times over, each time drawn anew.

    Args:
        degradation: what is repeated.
        times: how often, drawn for every image, both ends included; 0 leaves it as it is.

    Raises:
        ValueError: not a degradation, or a range that does not rise or leaves its bounds.
    """

    def __init__(self, degradation: Degradation, *, times: tuple[int, int]) -> None:
        super().__init__([degradation], name="degradation")
        check_range("times", times, 0, _MOST_TIMES)
        self.times = times

    @property
    def reach(self) -> int:
        """As if it always were the largest number of times."""
        return self.times[1] * super().reach

    def choose(self, generator: torch.Generator) -> list[Degradation]:
        """The degradation a random number of times."""
        return self.parts * integer(*self.times, generator)
