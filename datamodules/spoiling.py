"""Clean photos made into samples by a degradation: random ones, and ones that never change."""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.degradations import Degradation, Tasks
from datamodules.degradations.base import Spoilt
from datamodules.randomness import generator_of_name
from datamodules.samples import Sample, centre_crop


def degraded_sample(
    clean: Tensor, degradation: Degradation, name: str, generator: torch.Generator
) -> Sample:
    """A clean image degraded at random."""
    return sample_of(clean, degradation.spoil(clean, generator), name)


def sample_of(clean: Tensor, spoilt: Spoilt, name: str) -> Sample:
    """A clean image and what became of it as a sample."""
    sample: Sample = {"lq": spoilt.lq, "gt": clean, "name": name}
    if spoilt.mask is not None:
        sample["mask"] = spoilt.mask
    if spoilt.task is not None:
        sample["degradation"] = spoilt.task
    return sample


def cut_to(sample: Sample, size: int) -> Sample:
    """The middle ``size`` x ``size`` pixels of a sample."""
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
        if not isinstance(self.degradation, Tasks):
            return degraded_sample(clean, self.degradation, name, generator)
        task = index % self.each
        spoilt = self.degradation.spoil_by(task, clean, generator)
        return sample_of(clean, spoilt, f"{self.degradation.tasks[task]}/{name}")
