"""Photos read and put together in batches, with their masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mrdiff.cli.common.jobs import Job
from mrdiff.photo import PhotoError, PhotoFile, read_mask, read_photo

__all__ = ["Failed", "Loaded", "batches", "load", "load_all", "masks"]


class Loaded(NamedTuple):
    """A photo that was read, and its mask ``[1, H, W]``."""

    job: Job
    photo: PhotoFile
    mask: Tensor | None

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width in pixels."""
        return tuple(self.photo.image.shape[-2:])


class Failed(NamedTuple):
    """A photo that could not be read, and why."""

    job: Job
    reason: str
    size: tuple[int, ...] = (0, 0)


def load(job: Job) -> Loaded:
    """Read a photo and its mask; a PhotoError if one cannot be read, or they differ in size."""
    photo = read_photo(job.source)
    mask = None if job.mask is None else read_mask(job.mask)
    if mask is not None and mask.shape[-2:] != photo.image.shape[-2:]:
        raise PhotoError(f"{job.mask}: the mask is not of the size of {job.source}")
    return Loaded(job, photo, mask)


def load_all(jobs: Iterable[Job]) -> Iterator[Loaded | Failed]:
    """Read photos one by one."""
    for job in jobs:
        try:
            yield load(job)
        except PhotoError as error:
            yield Failed(job, str(error))


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
