"""Clean photos made into samples by a degradation: random ones, and ones that never change."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from datamodules.checks import class_path
from datamodules.datasets.base import Sample, random_patches, random_turn
from datamodules.degradations import Degradation, Tasks
from datamodules.degradations.base import Degraded, apply
from datamodules.errors import DataError
from datamodules.randomness import SampleKey, generator_of, generator_of_name, integer
from mrdiff.photo import centre_crop


def random_sample(
    clean: Tensor,
    degradation: Degradation,
    patch_size: int | None,
    key: SampleKey,
    name: str,
) -> Sample:
    """A random patch of a clean photo, turned, then degraded, from the key's randomness alone.

    The photo is float in [0, 1], or uint8 and made float when little of it is left.
    """
    generator = generator_of(key)
    task, reach = None, degradation.reach
    if isinstance(degradation, Tasks):  # each has a reach of its own
        task = integer(0, len(degradation.tasks) - 1, generator)
        reach = degradation.reach_of(task)
    if not (isinstance(reach, Integral) and reach >= 0):
        name = class_path(degradation)
        raise DataError(f"{name}.reach is {reach!r}; it must be a number of pixels, 0 or more")
    if patch_size is not None:
        clean = random_patches([clean], patch_size, generator, margin=reach)[0]
        clean = random_turn([clean], generator)[0]
    if clean.dtype == torch.uint8:
        clean = clean.float().div(255.0)
    degraded = _degrade(degradation, task, clean, generator)
    mask = None if degraded.mask is None else centre_crop(degraded.mask, patch_size)
    degraded = degraded._replace(lq=centre_crop(degraded.lq, patch_size), mask=mask)
    return _sample_of(centre_crop(clean, patch_size), degraded, name)


def _degrade(
    degradation: Degradation, task: int | None, clean: Tensor, generator: torch.Generator
) -> Degraded:
    if task is not None and isinstance(degradation, Tasks):
        return degradation.degrade_by(task, clean, generator)
    return apply(degradation, clean, generator)


def _sample_of(clean: Tensor, degraded: Degraded, name: str) -> Sample:
    sample: Sample = {"lq": degraded.lq, "gt": clean, "name": name}
    if degraded.mask is not None:
        sample["mask"] = degraded.mask
    if degraded.task is not None:
        sample["degradation"] = degraded.task
    return sample


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
        degraded = _degrade(self.degradation, task, clean, generator)
        return _sample_of(clean, degraded, name if task is None else f"{tasks[task]}/{name}")
