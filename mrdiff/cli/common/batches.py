"""Photos read and put together in batches, with their masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mrdiff.cli.common.jobs import Job
from mrdiff.photo import PhotoError, PhotoFile, read_mask, read_photo

__all__ = ["Failed", "Loaded", "batches", "load", "masks"]


class Loaded(NamedTuple):
    """A photo that was read, and its mask ``[1, H, W]`` or None."""

    job: Job
    photo: PhotoFile
    mask: Tensor | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.photo.image.shape[-2:]
        return height, width


class Failed(NamedTuple):
    """A photo that could not be read, and why."""

    job: Job
    reason: str


def load(job: Job) -> Loaded:
    """Read a photo and its mask.

    Raises:
        PhotoError: one of them cannot be read, or they differ in size.
    """
    photo = read_photo(job.source)
    mask = None if job.mask is None else read_mask(job.mask)
    if mask is not None and mask.shape[-2:] != photo.image.shape[-2:]:
        raise PhotoError(f"{job.mask}: the mask is not of the size of {job.source}")
    return Loaded(job, photo, mask)


def batches(items: Iterable[Loaded | Failed], size: int) -> Iterator[list[Loaded] | Failed]:
    """Neighbours of equal height and width, ``size`` at most; failures as they come."""
    batch: list[Loaded] = []
    for item in items:
        if isinstance(item, Failed):
            yield item
            continue
        if batch and (len(batch) == size or batch[0].size != item.size):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def masks(batch: list[Loaded]) -> Tensor | None:
    """``[B, 1, H, W]``, of ones for photos without a mask; None if none has one."""
    if all(photo.mask is None for photo in batch):
        return None
    whole = torch.ones(1, *batch[0].size)
    return torch.stack([whole if photo.mask is None else photo.mask for photo in batch])
