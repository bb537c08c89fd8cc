"""Clean photos made into samples by a degradation: random ones, and ones that never change.

A degradation draws for each sample by itself. What was drawn is applied here, to one sample in the
worker that drew it, or to a batch where the batch is.
"""

from __future__ import annotations

from abc import abstractmethod
from numbers import Integral
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from datamodules.checks import blaming, class_path
from datamodules.datasets.base import RestorationDataset, Sample, random_patches, random_turn
from datamodules.degradations import Degradation
from datamodules.degradations.base import applied, shape_of
from datamodules.degradations.packing import Draws
from datamodules.errors import DataError
from datamodules.randomness import SampleKey, generator_of, generator_of_name, integer
from mrdiff.photo import centre_crop


class Patch(NamedTuple):
    """What a sample is made of: a clean photo or a piece of one, and what was drawn for it.

    ``clean`` ``[C, h, w]``, uint8 or float in [0, 1], has a margin around the ``size`` pixels of
    the sample, as far as the degradation reaches; None is all of it. With ``masked`` the sample
    has a mask, of ones where its own degradation cuts no holes.
    """

    name: str
    clean: Tensor
    size: int | None
    degradation: Degradation  # that of its task, where tasks have names
    task: int | None
    masked: bool
    draws: Draws

    def sample(self) -> Sample:
        """The sample itself."""
        with blaming(class_path(self.degradation)):
            draws = self.degradation.pack([self.draws])
        images = degraded_pieces(
            self.clean[None], self.degradation, draws, size=self.size, masked=self.masked
        )
        sample: Any = {name: image[0] for name, image in images.items()} | {"name": self.name}
        if self.task is not None:
            sample["degradation"] = self.task
        return cast(Sample, sample)


class CleanDataset(RestorationDataset):
    """A dataset of clean photos, whose training samples may be degraded elsewhere."""

    degradation: Degradation

    @abstractmethod
    def patch(self, key: SampleKey) -> Patch:
        """What the training sample of a key is made of."""


@torch.no_grad()
def degraded_pieces(
    clean: Tensor, degradation: Degradation, draws: Draws, *, size: int | None, masked: bool
) -> dict[str, Tensor]:
    """``lq``, ``gt`` and maybe ``mask`` ``[B, ., H, W]`` of clean images ``[B, C, h, w]``.

    ``size`` and ``masked`` are as in :class:`Patch`.
    """
    clean = clean.float().div(255.0) if clean.dtype == torch.uint8 else clean
    lq, mask = applied(degradation, clean, draws)
    if mask is None and masked:
        mask = torch.ones_like(lq[:, :1])
    images = {"lq": lq, "gt": clean} | ({} if mask is None else {"mask": mask})
    return {name: centre_crop(image, size) for name, image in images.items()}


def random_patch(
    clean: Tensor, degradation: Degradation, patch_size: int | None, key: SampleKey, name: str
) -> Patch:
    """A random patch of a clean photo, turned, from the key's randomness alone."""
    generator = generator_of(key)
    tasks = degradation.tasks
    task = integer(0, len(tasks) - 1, generator) if tasks else None
    reach = degradation.of_task(task).reach  # each has one of its own
    if not (isinstance(reach, Integral) and reach >= 0):
        name = class_path(degradation)
        raise DataError(f"{name}.reach is {reach!r}; it must be a number of pixels, 0 or more")
    if patch_size is not None:
        clean = random_patches([clean], patch_size, generator, margin=int(reach))[0]
        clean = random_turn([clean], generator)[0]
    return _drawn(clean, degradation, task, generator, name)._replace(size=patch_size)


def _drawn(
    clean: Tensor, degradation: Degradation, task: int | None, generator: torch.Generator, name: str
) -> Patch:
    """All of a clean image, and what is drawn for it."""
    own, masked = degradation.of_task(task), degradation.cuts_holes
    with blaming(class_path(own)):
        draws = own.draw(generator, shape_of(clean))
    return Patch(name, clean, None, own, task, masked, draws)


class FixedSamples:
    """Samples of clean photos that are the same every time, each photo under every task in turn.

    They are functions of (``seed``, the photo's name).
    """

    def __init__(self, degradation: Degradation, *, seed: int) -> None:
        self.degradation, self.seed = degradation, seed

    @property
    def each(self) -> int:
        """How many samples a photo makes."""
        return max(1, len(self.degradation.tasks))

    def sample(self, clean: Tensor, index: int, name: str) -> Sample:
        """Sample ``index``, of the photo ``index // each``."""
        generator, tasks = generator_of_name(self.seed, name), self.degradation.tasks
        task = index % self.each if tasks else None
        title = name if task is None else f"{tasks[task]}/{name}"
        return _drawn(clean, self.degradation, task, generator, title).sample()
