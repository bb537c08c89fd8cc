"""The middles of photos and of their partners, for commands that measure on some photos."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from mrdiff.cli.common.errors import CommandError, one_line
from mrdiff.cli.common.jobs import Photo
from mrdiff.photo import PhotoError, centre_crop, read_image, read_mask, read_rgb

__all__ = ["Crop", "read_crop", "usable"]

T = TypeVar("T")


@dataclass(frozen=True)
class Crop:
    """The middle of a photo as it is ``[C, H, W]``, of its reference and of its mask."""

    photo: Photo
    lq: Tensor
    gt: Tensor | None  # [3, H, W]
    mask: Tensor | None  # [1, H, W]


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]} x {image.shape[-2]}"


def read_crop(photo: Photo, side: int | None) -> Crop:
    """The middles of at most ``side`` pixels, or all.

    Raises:
        PhotoError: a file cannot be read, or they differ in size.
    """
    lq = read_image(photo.source)
    gt = None if photo.reference is None else read_rgb(photo.reference)
    mask = None if photo.mask is None else read_mask(photo.mask)
    for path, image in ((photo.reference, gt), (photo.mask, mask)):
        if image is not None and image.shape[-2:] != lq.shape[-2:]:
            sizes = f"{_size(image)}, not {_size(lq)}"
            raise PhotoError(f"{path}: another size than {photo.source}: {sizes}")
    rest = [None if image is None else centre_crop(image, side) for image in (gt, mask)]
    return Crop(photo, centre_crop(lq, side), *rest)


def usable(photos: Sequence[Photo], read: Callable[[Photo], T]) -> list[T]:
    """What ``read`` makes of the photos; those that it refuses are named and left out.

    Raises:
        CommandError: it refuses all.
    """
    found, refused = [], []
    for photo in photos:
        try:
            found.append(read(photo))
        except PhotoError as error:
            refused.append(one_line(error))
    if not found:
        raise CommandError(f"none of the {len(photos)} photos can be used: {refused[0]}")
    for reason in refused:
        print(f"left out: {reason}", file=sys.stderr)
    return found
