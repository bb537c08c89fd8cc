"""Photos read and put together in batches, with their masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mrdiff.cli.common.jobs import Job
from mrdiff.photo import PhotoError, PhotoFile, read_mask, read_photo

__all__ = ["Failed", "Loaded", "batches", "load", "masks", "try_load"]


class Loaded(NamedTuple):
    """A photo that was read, and its mask ``[1, H, W]``."""

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
    size: tuple[int, int] = (0, 0)


def load(job: Job) -> Loaded:
    """Read a photo and its mask; a PhotoError if one cannot be read, or they differ in size."""
    photo = read_photo(job.source)
    mask = None if job.mask is None else read_mask(job.mask)
    if mask is not None and mask.shape[-2:] != photo.image.shape[-2:]:
        raise PhotoError(f"{job.mask}: the mask is not of the size of {job.source}")
    return Loaded(job, photo, mask)


def try_load(job: Job) -> Loaded | Failed:
    """Read a photo."""
    try:
        return load(job)
    except PhotoError as error:
        return Failed(job, str(error))


def batches(
    items: Iterable[Loaded | Failed], most: Callable[[int, int], int], *, budget: int
) -> Iterator[list[Loaded] | Failed]:
    """Photos of equal height and width, ``most`` of that size at most; failures as they come.

    Batches that are not full wait for more of their size, with ``budget`` pixels together: of more
    the one that began first is taken as it is.
    """
    waiting: dict[tuple[int, int], list[Loaded]] = {}
    held = 0
    for item in items:
        if isinstance(item, Failed):
            yield item
            continue
        waiting.setdefault(item.size, []).append(item)
        held += math.prod(item.size)
        full = len(waiting[item.size]) >= most(*item.size)
        while full or held > budget:
            batch = waiting.pop(item.size if full else next(iter(waiting)))
            full, held = False, held - len(batch) * math.prod(batch[0].size)
            yield batch
    yield from waiting.values()


def masks(batch: list[Loaded]) -> Tensor | None:
    """``[B, 1, H, W]``, of ones for photos without a mask; None if none has one."""
    if all(photo.mask is None for photo in batch):
        return None
    whole = torch.ones(1, *batch[0].size)
    return torch.stack([whole if photo.mask is None else photo.mask for photo in batch])
