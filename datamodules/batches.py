"""Samples on their way into a batch: checked one by one, and then for what they must share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, default_collate

from datamodules.checks import blaming, check_sample, class_path
from datamodules.datasets.base import RestorationDataset, Sample, Source, index_of
from datamodules.datasets.degraded import CleanDataset, Patch
from datamodules.datasets.paired import looks
from datamodules.errors import DataError
from datamodules.randomness import SampleKey


class Checked(Dataset[Sample | Patch]):
    """The samples of a dataset, whatever its class; a wrong one is a :class:`DataError`.

    ``channels`` are those of the network, ``paired`` samples need a ``gt``. With ``apart``, what
    any device can degrade is left a :class:`Patch`.
    """

    def __init__(
        self, dataset: RestorationDataset, *, channels: int, paired: bool, apart: bool = False
    ) -> None:
        self.dataset, self.channels, self.paired = dataset, channels, paired
        self.apart, self.tasks = apart, dataset.tasks

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | SampleKey) -> Sample | Patch:
        where = f"{class_path(self.dataset)}[{index_of(key)}]"
        with blaming(where):
            sample = self._sample_or_patch(key)
        if isinstance(sample, Patch):
            return sample
        check_sample(
            sample,
            where=where,
            channels=self.channels,
            paired=self.paired,
            tasks=len(self.tasks),
        )
        return sample

    def _sample_or_patch(self, key: int | SampleKey) -> Sample | Patch:
        dataset = self.dataset
        if not (self.apart and isinstance(dataset, CleanDataset) and isinstance(key, SampleKey)):
            return dataset[key]
        patch = dataset.patch(key)
        return patch if patch.degradation.on_device else patch.sample()


class Collate:
    """Makes a batch of samples of one size and of the same keys.

    ``role`` is the set's name in the configuration.
    """

    def __init__(self, role: str) -> None:
        self.role = role

    def __call__(self, samples: Sequence[Sample]) -> Any:
        """The batch; DataError names two samples that cannot be in one."""
        first: Any = samples[0]
        for sample in samples:
            if sample["lq"].shape != first["lq"].shape:
                pair = [(s["name"], size_of(s["lq"])) for s in (first, sample)]
                raise DataError(unequal(self.role, *pair))
            if alone := first.keys() ^ sample.keys():
                names = f"{first['name']} and {sample['name']}"
                keys = ", ".join(sorted(alone))
                raise DataError(f"data.{self.role}: of {names} only one sample has {keys}")
        with blaming(f"data.{self.role}: the batch of {first['name']}"):
            return default_collate([*samples])


def size_of(image: Tensor) -> tuple[int, int]:
    """(width, height)."""
    return image.shape[-1], image.shape[-2]


def unequal(
    role: str, first: tuple[str | Path, tuple[int, int]], other: tuple[str | Path, tuple[int, int]]
) -> str:
    """The line about two images, each its name and (width, height), that one batch was to hold."""
    said = " and ".join(f"{name} is {width}x{height}" for name, (width, height) in (first, other))
    sizes, batch = "patch_size", "batch_size"
    if role != "train":
        sizes, batch = "crop_size", "val_batch_size"
    return f"{said}, but a batch takes one size: give data.{role}.{sizes}, or data.{batch} 1"


def check_sizes_of(sources: Sequence[Source], role: str) -> None:
    """Raise :class:`DataError` if files, as they are cut, cannot be in one batch."""
    first = None
    for path, size in _sizes(sources, role):
        first = first or (path, size)
        if size != first[1]:
            raise DataError(unequal(role, first, (path, size)))


def _sizes(sources: Sequence[Source], role: str) -> Iterator[tuple[Path, tuple[int, int]]]:
    """The files whose size is not that of a patch, and (width, height) of each when cut."""
    for source in sources:
        if role == "train" and source.patch_size is not None:
            continue  # smaller images are filled up
        most = None if role == "train" else source.crop_size
        for files in source.files():
            if path := files.lq or files.gt:
                width, height = looks(path)[0]
                yield (
                    path,
                    (width, height) if most is None else (min(width, most), min(height, most)),
                )
