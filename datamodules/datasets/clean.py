"""Datasets without pairs of files: clean photos degraded on the fly, and photos to restore."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from torch import Tensor

from datamodules.datasets.base import (
    RestorationDataset,
    Sample,
    Source,
    check_sizes,
    find_images,
    index_of,
)
from datamodules.datasets.degraded import CleanDataset, FixedSamples, Patch, random_patch
from datamodules.degradations import Degradation
from datamodules.leaves.bank import LeafBank, LeafReader
from datamodules.leaves.look import LOOK, LeafLook
from datamodules.randomness import SampleKey, generator_of_name, integer
from mrdiff.photo import centre_crop, name_of, read_rgb


class _Folder(RestorationDataset):
    """The photos of a folder and all below it; ``role`` is what they are, for errors."""

    def __init__(self, path: str, *, role: str) -> None:
        self.folder, self.role = Path(path).expanduser(), role

    @cached_property
    def paths(self) -> list[Path]:
        """The photos, sorted; DataError if there are none."""
        return find_images(self.folder, role=self.role)

    def check(self) -> None:
        """Raise :class:`DataError` if there is nothing to read."""
        len(self)

    def __len__(self) -> int:
        return len(self.paths)


class CleanFolder(_Folder, CleanDataset):
    """Clean photos of a folder and all below it, degraded when they are read.

    In training every epoch brings another patch and another degradation. Elsewhere a photo comes
    under each task of the degradation, the same each time: a function of (seed, name) alone.

    Args:
        path: folder of clean photos.
        patch_size: side of the random training patch in pixels; null for the whole image.
        crop_size: outside training, the side of the central part; null for the whole image.
        seed: of the degradations outside training.
    """

    def __init__(
        self,
        path: str,
        degradation: Degradation,
        *,
        patch_size: int | None = None,
        crop_size: int | None = None,
        seed: int = 0,
    ) -> None:
        check_sizes(patch_size, crop_size)
        super().__init__(path, role="clean photos")
        self.degradation, self.patch_size, self.crop_size = degradation, patch_size, crop_size
        self.fixed = FixedSamples(degradation, seed=seed)

    def sources(self) -> list[Source]:
        """Its folder."""
        return [Source(gt=self.folder, patch_size=self.patch_size, crop_size=self.crop_size)]

    def __len__(self) -> int:
        return len(self.paths) * self.fixed.each

    def _read(self, index: int) -> tuple[Tensor, str]:
        path = self.paths[index // self.fixed.each]
        return read_rgb(path), name_of(path, self.folder)

    def patch(self, key: SampleKey) -> Patch:
        clean, name = self._read(key.item)
        return random_patch(clean, self.degradation, self.patch_size, key, name)

    def __getitem__(self, key: int | SampleKey) -> Sample:
        if isinstance(key, SampleKey):
            return self.patch(key).sample()
        clean, name = self._read(key)
        return self.fixed.sample(centre_crop(clean, self.crop_size), key, name)


class DeadLeaves(CleanDataset):
    """Patches of generated dead-leaves pictures, degraded when they are read.

    The bank of pictures is drawn once and cached (:class:`datamodules.leaves.bank.LeafBank`).

    Args:
        patch_size, image_size: sides of a patch and of a picture of the bank in pixels.
        length: samples an epoch.
        images: pictures in the bank.
        seed: of the pictures.
        look: what the pictures look like; left out, all ingredients at their usual strength.
    """

    def __init__(
        self,
        degradation: Degradation,
        *,
        patch_size: int = 64,
        length: int = 6400,
        images: int = 240,
        image_size: int = 288,
        seed: int = 0,
        look: LeafLook = LOOK,
    ) -> None:
        check_sizes(patch_size)
        if patch_size > image_size:
            raise ValueError(f"patch_size {patch_size} exceeds image_size {image_size}")
        if length < 1:
            raise ValueError(f"length must be at least 1 sample an epoch, got {length}")
        self.degradation, self.patch_size, self.length = degradation, patch_size, length
        self.bank = LeafBank(count=images, size=image_size, seed=seed, look=look)
        self._reader = LeafReader(self.bank)

    def caches(self) -> list[Path]:
        """The bank."""
        return [self.bank.path]

    def prepare(self) -> None:
        """Draw the bank, unless it lies whole in the cache."""
        self.bank.ensure()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: int | SampleKey) -> Sample:
        key = key if isinstance(key, SampleKey) else SampleKey(seed=0, epoch=0, item=key)
        return self.patch(key).sample()

    def patch(self, key: SampleKey) -> Patch:
        if not 0 <= key.item < self.length:
            raise IndexError(key.item)
        # A stream of its own: it must not be the one that crops and degrades.
        choice = generator_of_name(key.seed, f"picture {key.epoch} {key.item}")
        clean = self._reader[integer(0, self.bank.count - 1, choice)]
        name = f"{key.epoch}-{key.item}"
        return random_patch(clean, self.degradation, self.patch_size, key, name)


class LQFolder(_Folder):
    """Photos to restore, of a folder and all below it, without a reference."""

    def __init__(self, path: str) -> None:
        super().__init__(path, role="photos to restore")

    def sources(self) -> list[Source]:
        """Its folder."""
        return [Source(lq=self.folder)]

    def __getitem__(self, key: int | SampleKey) -> Sample:
        path = self.paths[index_of(key)]
        return {"lq": read_rgb(path), "name": name_of(path, self.folder)}
