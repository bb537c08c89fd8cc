"""What a degradation is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import Field, field, fields, is_dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from datamodules.checks import blaming, class_path, described, unlike
from datamodules.errors import DataError

T = TypeVar("T")


class Degraded(NamedTuple):
    """A degraded image ``[C, H, W]`` and, where something is missing, its mask ``[1, H, W]``.

    The mask is of the image's dtype, 1 where the image was kept and 0 in holes. ``task`` is the
    number of the degradation where several have names.
    """

    lq: Tensor
    mask: Tensor | None = None
    task: int | None = None


class Degradation(ABC):
    """A physical model of how a photograph is degraded.

    A subclass takes its parameters as keyword-only ranges and draws from ``generator`` alone, so
    the same generator state gives the same picture in any worker, process or run.
    """

    def __post_init__(self) -> None:
        """Check the fields that :func:`parameter` made, where a subclass is a dataclass."""
        own: tuple[Field[Any], ...] = fields(self) if is_dataclass(self) else ()
        for each in own:
            if "within" in each.metadata:
                check_limits(each.name, getattr(self, each.name), *each.metadata["within"])

    @abstractmethod
    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Degrade one image.

        Args:
            image: float ``[C, H, W]`` in [0, 1], C = 1 or 3, on the CPU; it is not changed.
            generator: CPU generator, the only source of randomness.

        Returns:
            A new tensor of the same shape and dtype in [0, 1], rounded to 8 bits as a file is.
        """

    def degrade_with_mask(self, image: Tensor, generator: torch.Generator) -> Degraded:
        """The same picture as :meth:`degrade`, with the mask of what is missing, if anything is."""
        return Degraded(self.degrade(image, generator))

    @property
    def reach(self) -> int:
        """How many pixels beyond a patch decide what becomes of it; 0 for most.

        Training patches are cut so much larger, degraded, and cut again.
        """
        return 0

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the degradations among which a sample says its own; none for most."""
        return ()

    @property
    def cuts_holes(self) -> bool:
        """Whether there are masks: always or never, so that samples can be batched."""
        return type(self).degrade_with_mask is not Degradation.degrade_with_mask


class MaskedDegradation(Degradation):
    """A degradation that cuts holes: a subclass defines :meth:`degrade_with_mask`."""

    @abstractmethod
    def degrade_with_mask(self, image: Tensor, generator: torch.Generator) -> Degraded:
        """As :meth:`Degradation.degrade`, with the mask."""

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """The picture alone."""
        return self.degrade_with_mask(image, generator).lq


@torch.no_grad()
def apply(degradation: Degradation, image: Tensor, generator: torch.Generator) -> Degraded:
    """What a degradation makes of a copy of an image ``[C, H, W]``, whoever wrote its class.

    Raises:
        DataError: naming the class, if it fails or returns anything but a degraded image.
    """
    name = class_path(degradation)
    with blaming(name):
        found = degradation.degrade_with_mask(image.clone(), generator)
        masked = degradation.cuts_holes
    if not isinstance(found, Degraded):
        raise DataError(f"{name} returned {described(found)} in place of Degraded(lq, mask)")
    same, dtype = f"of an image that is {described(image)}", image.dtype
    if said := unlike(found.lq, tuple(image.shape), dtype):
        raise DataError(f"{name} returned {said} {same}: it must be alike, with values in [0, 1]")
    if (found.mask is not None) != masked:
        said = "no mask" if masked else "a mask, and its cuts_holes is False"
        raise DataError(f"{name} returned {said}: images have masks always or never")
    if masked and (said := unlike(found.mask, (1, *image.shape[-2:]), dtype)):
        raise DataError(f"{name} returned a mask of {said} {same}: it must be [1, H, W], alike")
    return found


def to_8_bit(image: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to multiples of 1/255."""
    return image.clamp(0.0, 1.0).mul(255.0).round().div(255.0)


def check_limits(name: str, value: float | Sequence[float], low: float, high: float) -> None:
    """Raise ``ValueError`` unless a number, or a range that rises, lies within [low, high]."""
    first, last = value if isinstance(value, Sequence) else (value, value)
    if not low <= first <= last <= high:
        raise ValueError(f"{name} must rise within [{low:g}, {high:g}], got {value}")


def parameter(default: T, *, within: tuple[float, float]) -> T:
    """A field of a dataclass that is a :class:`Degradation`: a number, or a range that rises."""
    made: T = field(default=default, metadata={"within": within})
    return made


def check_weights(name: str, weights: Sequence[float]) -> None:
    """Raise ``ValueError`` unless weights are at least 0, finite and not all 0."""
    if not (min(weights) >= 0 and 0 < sum(weights) < math.inf):
        raise ValueError(f"{name} must be at least 0 and not all 0, got {tuple(weights)}")
