"""What the datasets have in common: samples, cropping and turning, and their base class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.degradations.base import Degradation
from datamodules.degradations.mirror import mirrored
from datamodules.errors import DataError
from datamodules.randomness import SampleKey, integer
from mrdiff.photo import list_images, name_of


class Sample(TypedDict):
    """One image: ``lq`` and ``gt`` float32 ``[3, H, W]`` in [0, 1], ``name`` unique in its set.

    ``mask`` ``[1, H, W]`` is 1 where the image is whole and 0 in holes; ``degradation`` is the
    number of the task. Either is in all samples of a set or in none.
    """

    lq: Tensor
    gt: NotRequired[Tensor]
    name: str
    mask: NotRequired[Tensor]
    degradation: NotRequired[int]


class SourceFiles(NamedTuple):
    """The files of one name, None where there is none; ``others`` have that name too."""

    name: str
    lq: Path | None
    gt: Path | None
    mask: Path | None
    others: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Folders whose images belong together by name, None for a kind that is not read.

    ``patch_size`` and ``crop_size`` are what is cut from them in training, and outside it.
    """

    lq: Path | None = None
    gt: Path | None = None
    mask: Path | None = None
    patch_size: int | None = None
    crop_size: int | None = None

    @property
    def folders(self) -> dict[str, Path]:
        """The folders that are read, by kind."""
        kinds = {"lq": self.lq, "gt": self.gt, "mask": self.mask}
        return {kind: folder for kind, folder in kinds.items() if folder is not None}

    def files(self) -> list[SourceFiles]:
        """All images by name, with or without a partner; a folder that is missing has none."""
        named: dict[str, dict[str, Path]] = {}
        others: dict[str, tuple[Path, ...]] = {}
        for kind, folder in self.folders.items():
            for path in list_images(folder) if folder.is_dir() else []:
                name = name_of(path, folder)
                if named.setdefault(name, {}).setdefault(kind, path) != path:
                    others[name] = (*others.get(name, ()), path)
        return [
            SourceFiles(name, of.get("lq"), of.get("gt"), of.get("mask"), others.get(name, ()))
            for name, of in sorted(named.items())
        ]


class RestorationDataset(Dataset[Sample]):
    """A map-style dataset in three stages, so that making one costs nothing.

    :meth:`prepare` runs once a machine and :meth:`check` in every process before training starts;
    ``dataset[key]`` gives a random sample for a :class:`SampleKey`, a fixed one for an index.
    """

    degradation: Degradation | None = None

    def prepare(self) -> None:
        """Make what must be made once, such as a bank in the cache."""

    def check(self) -> None:
        """Raise :class:`DataError` about anything that would fail later."""

    def sources(self) -> list[Source]:
        """The folders that are read, at no cost and also where :meth:`check` refuses them."""
        return []

    def caches(self) -> list[Path]:
        """The files that :meth:`prepare` makes."""
        return []

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks that ``degradation`` numbers in the samples; none for most."""
        return () if self.degradation is None else self.degradation.tasks

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, key: int | SampleKey) -> Sample: ...


def index_of(key: int | SampleKey) -> int:
    """The position in the dataset that a key names."""
    return key.item if isinstance(key, SampleKey) else key


def find_images(folder: Path, *, role: str) -> list[Path]:
    """The images below ``folder``.

    Raises:
        DataError: no such folder, or none in it.
    """
    if folder.parts[:1] == ("None",):  # what an interpolation of a null leaves
        raise DataError(f"no folder of the {role}: give --data.root FOLDER")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder of the {role}")
    paths = list_images(folder)
    if not paths:
        raise DataError(f"{folder}: no images in it or below; give the folder of the {role}")
    return paths


def check_sizes(*sides: int | None) -> None:
    """Raise ``ValueError`` for sides of patches or crops that cannot be meant."""
    for side in sides:
        if side is not None and side < 8:
            raise ValueError(f"patch_size must be at least 8 pixels or null, got {side}")


def random_patches(
    images: Sequence[Tensor], size: int, generator: torch.Generator, *, margin: int = 0
) -> list[Tensor]:
    """The same square cut from images of one shape ``[C, H, W]``, with a margin on all sides.

    What lies beyond an image is its mirror image; the square itself lies within it, if it fits.
    """
    height, width = images[0].shape[-2:]
    top = integer(0, max(height - size, 0), generator)
    left = integer(0, max(width - size, 0), generator)
    reach = size + margin
    rows: Tensor | slice = slice(top - margin, top + reach)
    columns: Tensor | slice = slice(left - margin, left + reach)
    if not (margin <= top <= height - reach and margin <= left <= width - reach):
        rows = mirrored(top - margin, top + reach, height)
        columns = mirrored(left - margin, left + reach, width)
    return [image[..., rows, :][..., columns] for image in images]


def random_turn(images: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """One of the eight symmetries of the square, the same for all images."""
    symmetry = integer(0, 7, generator)
    turned = [image.rot90(symmetry % 4, (-2, -1)) for image in images]
    return [(i.flip(-1) if symmetry >= 4 else i).contiguous() for i in turned]
