"""Photos read and put together in batches, with their alpha and their masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mrdiff.cli.jobs import Job
from mrdiff.photo import PhotoError, read_image, read_mask, split_alpha

__all__ = ["Photo", "batches", "masks", "read_photo"]


class Photo(NamedTuple):
    """A photo that was read: colours ``[1 or 3, H, W]``, alpha and mask ``[1, H, W]`` or None."""

    job: Job
    colours: Tensor
    alpha: Tensor | None
    mask: Tensor | None


def read_photo(job: Job) -> Photo:
    """Read a photo and its mask.

    Raises:
        PhotoError: one of them cannot be read, or they differ in size.
    """
    colours, alpha = split_alpha(read_image(job.source))
    if job.mask is None:
        return Photo(job, colours, alpha, None)
    mask = read_mask(job.mask)
    if mask.shape[-2:] != colours.shape[-2:]:
        raise PhotoError(f"{job.mask}: the mask is not of the size of {job.source}")
    return Photo(job, colours, alpha, mask)


def batches(jobs: list[Job], size: int, failures: dict[Job, str]) -> Iterator[list[Photo]]:
    """Neighbouring photos of equal height and width, read as they are needed, ``size`` at most."""
    batch: list[Photo] = []
    for job in jobs:
        try:
            photo = read_photo(job)
        except PhotoError as error:
            failures[job] = str(error)
            continue
        if batch and (
            len(batch) == size or batch[0].colours.shape[-2:] != photo.colours.shape[-2:]
        ):
            yield batch
            batch = []
        batch.append(photo)
    if batch:
        yield batch


def masks(batch: list[Photo]) -> Tensor | None:
    """``[B, 1, H, W]``, of ones for photos without a mask; None if none has one."""
    if all(photo.mask is None for photo in batch):
        return None
    whole = torch.ones_like(batch[0].colours[:1])
    return torch.stack([whole if photo.mask is None else photo.mask for photo in batch])
