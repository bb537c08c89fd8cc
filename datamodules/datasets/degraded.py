"""Clean photos made into samples by a degradation: random ones, and ones that never change."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.datasets.base import Sample, random_patches, random_turn
from datamodules.degradations import Degradation, Tasks
from datamodules.degradations.base import Spoilt
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
    task = None
    if isinstance(degradation, Tasks):  # first, for each has a reach of its own
        task = integer(0, len(degradation.tasks) - 1, generator)
    if patch_size is not None:
        reach = degradation.reach if task is None else degradation.reach_of(task)
        clean = random_patches([clean], patch_size, generator, margin=reach)[0]
        clean = random_turn([clean], generator)[0]
    if clean.dtype == torch.uint8:
        clean = clean.float().div(255.0)
    sample = sample_of(clean, _spoil(degradation, task, clean, generator), name)
    return sample if patch_size is None else _cut_to(sample, patch_size)


def _spoil(
    degradation: Degradation, task: int | None, clean: Tensor, generator: torch.Generator
) -> Spoilt:
    if task is not None and isinstance(degradation, Tasks):
        return degradation.spoil_by(task, clean, generator)
    return degradation.spoil(clean, generator)


def sample_of(clean: Tensor, spoilt: Spoilt, name: str) -> Sample:
    """A clean image and what became of it as a sample."""
    sample: Sample = {"lq": spoilt.lq, "gt": clean, "name": name}
    if spoilt.mask is not None:
        sample["mask"] = spoilt.mask
    if spoilt.task is not None:
        sample["degradation"] = spoilt.task
    return sample


def _cut_to(sample: Sample, size: int) -> Sample:
    """The middle ``size`` x ``size`` pixels of a sample."""
    if sample["lq"].shape[-1] == size:
        return sample
    cut: Sample = {**sample, "lq": centre_crop(sample["lq"], size)}
    cut["gt"] = centre_crop(sample["gt"], size)
    if "mask" in sample:
        cut["mask"] = centre_crop(sample["mask"], size)
    return cut


class FixedSamples:
    """The fixed samples of clean photos: each the same every time, under every task in turn.

    Args:
        degradation: of all samples.
        seed: with the photo's name, the source of their randomness.
    """

    def __init__(self, degradation: Degradation, *, seed: int) -> None:
        self.degradation = degradation
        self.seed = seed

    @property
    def each(self) -> int:
        """How many samples a photo makes."""
        return max(1, len(self.degradation.tasks))

    def sample(self, clean: Tensor, index: int, name: str) -> Sample:
        """Sample ``index``, of the photo ``index // each``."""
        generator = generator_of_name(self.seed, name)
        tasks = self.degradation.tasks
        task = index % self.each if tasks else None
        spoilt = _spoil(self.degradation, task, clean, generator)
        return sample_of(clean, spoilt, name if task is None else f"{tasks[task]}/{name}")
