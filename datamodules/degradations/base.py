"""What a degradation is: parameters drawn for one image, then applied to a batch.

All that is random is drawn on the CPU, from the generator of the sample; what is applied to the
pixels of many images at once, on any device, is a function of what was drawn. So the same sample
comes from any worker, process, run and device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import Field, field, fields, is_dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from datamodules.checks import blaming, class_path, described, unlike
from datamodules.degradations.packing import Draws, Shape, packed
from datamodules.errors import DataError
from datamodules.randomness import new_seed

T = TypeVar("T")


class Degraded(NamedTuple):
    """Degraded images and, where something is missing, their masks; of one image or of a batch.

    ``lq`` is ``[..., C, H, W]``; ``mask`` ``[..., 1, H, W]`` is of its dtype, 1 where the image was
    kept and 0 in holes.
    """

    lq: Tensor
    mask: Tensor | None = None


class Degradation(ABC):
    """A physical model of how a photograph is degraded, one image at a time.

    A subclass takes its parameters as keyword-only ranges and draws from ``generator`` alone, so
    the same generator state gives the same picture in any worker, process or run.
    """

    _in_two_parts = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse methods that would not be called, or called for something else."""
        super().__init_subclass__(**options)
        if "_in_two_parts" in vars(cls):
            return
        if cls._in_two_parts:
            refused, cure = {"degrade", "degrade_with_mask"}, "give it draw and apply instead"
        else:
            refused, cure = {"draw", "pack", "apply"}, "derive it from BatchDegradation"
        if found := refused & vars(cls).keys():
            raise TypeError(f"{cls.__qualname__} defines {', '.join(sorted(found))}: {cure}")

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

    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        """All that is random about the degradation of one image of a shape ``(C, H, W)``.

        Here a seed, for a class that defines :meth:`degrade` alone.
        """
        return {"seed": new_seed(generator)}

    def pack(self, draws: Sequence[Draws]) -> Draws:
        """What was drawn for several images of one shape, for :meth:`apply`."""
        return packed(draws)

    def apply(self, images: Tensor, draws: Draws) -> Degraded:
        """Degrade a batch ``[B, C, H, W]`` by what :meth:`pack` made of its draws.

        Here image by image on the CPU, whatever the class.

        Raises:
            DataError: naming the class, if it fails or returns anything but a degraded image.
        """
        found = [
            _checked(self, image, torch.Generator().manual_seed(seed))
            for image, seed in zip(images, draws["seed"].tolist(), strict=True)
        ]
        masks = [each.mask for each in found if each.mask is not None]
        return Degraded(
            torch.stack([each.lq for each in found]), torch.stack(masks) if masks else None
        )

    @property
    def on_device(self) -> bool:
        """Whether :meth:`apply` works where the images are: any device, and no wait for it."""
        return False

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

    def of_task(self, task: int | None) -> Degradation:
        """The degradation of the number ``task``; itself where none have names."""
        return self

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


class BatchDegradation(Degradation):
    """A degradation in two parts: a subclass defines :meth:`draw` and :meth:`apply`.

    ``draw`` returns numbers and tensors by name, which :meth:`pack` puts together for ``apply``.
    There nothing is random, and no value is taken back to the host. What cannot be small, such as
    noise, is drawn as a seed (:mod:`datamodules.degradations.white_noise`).
    """

    _in_two_parts = True

    @abstractmethod
    def draw(self, generator: torch.Generator, shape: Shape) -> Draws:
        """All that is random about the degradation of one image of a shape ``(C, H, W)``."""

    @abstractmethod
    def apply(self, images: Tensor, draws: Draws) -> Degraded:
        """Degrade ``[B, C, H, W]`` in [0, 1], which is not changed, by what ``pack`` returned."""

    @torch.no_grad()
    def degrade_with_mask(self, image: Tensor, generator: torch.Generator) -> Degraded:
        draws = self.pack([self.draw(generator, shape_of(image))])
        lq, mask = applied(self, image[None], draws)
        return Degraded(lq[0], None if mask is None else mask[0])

    def degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return self.degrade_with_mask(image, generator).lq

    @property
    def on_device(self) -> bool:
        return True

    @property
    def cuts_holes(self) -> bool:
        return False


def shape_of(image: Tensor) -> Shape:
    """(C, H, W) of an image."""
    channels, height, width = image.shape
    return channels, height, width


def applied(degradation: Degradation, images: Tensor, draws: Draws) -> Degraded:
    """What :meth:`Degradation.apply` makes of images, whoever wrote it; no value is looked at.

    Raises:
        DataError: naming the class, if it fails, changes its input or returns anything else.
    """
    name = class_path(degradation)
    if name.startswith("datamodules."):  # those of the package are tested, and this is timed
        return degradation.apply(images, draws)
    before = None if images.is_inference() else images._version
    with blaming(name):
        found = degradation.apply(images, draws)
    if not isinstance(found, Degraded):
        raise DataError(f"{name} returned {described(found)} in place of Degraded(lq, mask)")
    if before not in (None, images._version):
        raise DataError(f"{name} changed the images that it was given: its apply must not")
    if (found.mask is not None) != degradation.cuts_holes:
        said = "no mask" if found.mask is None else "a mask"
        raise DataError(f"{name} returned {said}, and its cuts_holes is {degradation.cuts_holes}")
    if _form(found.lq) != _form(images):
        raise DataError(f"{name} returned images of {described(found.lq)} for {described(images)}")
    if found.mask is not None and _form(found.mask) != _form(images[:, :1]):
        raise DataError(f"{name} returned masks of {described(found.mask)} for {described(images)}")
    return found


def _form(images: Tensor) -> tuple[torch.Size, torch.dtype, torch.device] | None:
    known = isinstance(images, Tensor)
    return (images.shape, images.dtype, images.device) if known else None


@torch.no_grad()
def _checked(degradation: Degradation, image: Tensor, generator: torch.Generator) -> Degraded:
    """What a user's class makes of a copy of an image ``[C, H, W]``; DataError as for ``apply``."""
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
    return image.clamp(0.0, 1.0).mul_(255.0).round_().div_(255.0)


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
