"""Pairs of files: a folder of degraded photos and a folder of what they should look like."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from datamodules.datasets.base import (
    RestorationDataset,
    Sample,
    Source,
    check_patch_size,
    find_images,
    index_of,
    name_of,
    random_patches,
    random_turn,
)
from datamodules.errors import DataError, report
from datamodules.randomness import SampleKey, generator_of
from mrdiff.photo import GREY_MODES, centre_crop, read_mask, read_rgb, upright_size


def _by_name(folder: Path, role: str) -> dict[str, Path]:
    """The images of a folder by name.

    Raises:
        DataError: no images, or two files that differ in their suffix only.
    """
    named: dict[str, Path] = {}
    twice = []
    for path in find_images(folder, role=role):
        name = name_of(path, folder)
        if name in named:
            twice.append(f"{named[name].name} and {path.name}")
        named[name] = path
    report(twice, what=f"{folder}: files of one name, keep one of each")
    return named


def _looks(path: Path) -> tuple[tuple[int, int], str]:
    """(width, height) upright and "grey" or "colour", from the header alone.

    Raises:
        OSError: the file cannot be opened as an image.
    """
    with Image.open(path) as image:
        # Of the class itself: PNG's own getexif decodes the whole file to find a late chunk.
        size = upright_size(image, Image.Image.getexif(image))
        return size, "grey" if image.mode in GREY_MODES else "colour"


def _mismatch(name: str, lq: Path, gt: Path) -> str | None:
    """What is wrong with a pair, or None."""
    looks = []
    for path in (lq, gt):
        try:
            looks.append(_looks(path))
        except (OSError, ValueError, SyntaxError):  # what Pillow raises about broken headers
            return f"{path} is not a readable image"
    (lq_size, lq_kind), (gt_size, gt_kind) = looks
    if lq_size != gt_size:
        return (
            f"{name} is {lq_size[0]}x{lq_size[1]} in the LQ folder "
            f"and {gt_size[0]}x{gt_size[1]} in the GT folder"
        )
    if lq_kind != gt_kind:
        return f"{name} is {lq_kind} in the LQ folder and {gt_kind} in the GT folder"
    return None


def _mask_mismatch(mask: Path, lq: Path) -> str | None:
    """What is wrong with a mask, or None."""
    try:
        sizes = [_looks(path)[0] for path in (mask, lq)]
    except (OSError, ValueError, SyntaxError):
        return f"{mask} is not a readable image"
    return None if sizes[0] == sizes[1] else f"{mask} is not of the size of {lq}"


class PairedFolder(RestorationDataset):
    """Degraded photos and their references, matched by relative path without the suffix.

    Args:
        lq: folder of degraded photos.
        gt: folder of references of the same names; the suffixes may differ.
        mask: folder of masks of the same names, white where the photo was kept and black in holes.
        patch_size: side of the random training patch in pixels; null for whole images.
        crop_size: outside training, the central part to keep; null for the whole image.
    """

    def __init__(
        self,
        lq: str,
        gt: str,
        *,
        mask: str | None = None,
        patch_size: int | None = None,
        crop_size: int | None = None,
    ) -> None:
        check_patch_size(patch_size)
        check_patch_size(crop_size)
        self.lq = Path(lq).expanduser()
        self.gt = Path(gt).expanduser()
        self.mask = None if mask is None else Path(mask).expanduser()
        self.patch_size = patch_size
        self.crop_size = crop_size
        self._pairs: list[tuple[str, Path, Path]] = []
        self._masks: dict[str, Path] = {}

    def sources(self) -> list[Source]:
        """The folders of the pairs and their masks."""
        return [
            Source(
                lq=self.lq,
                gt=self.gt,
                mask=self.mask,
                patch_size=self.patch_size,
                crop_size=self.crop_size,
            )
        ]

    @property
    def pairs(self) -> list[tuple[str, Path, Path]]:
        """(name, LQ file, GT file), sorted by name.

        Raises:
            DataError: a folder is missing or empty, or a file has no partner.
        """
        if not self._pairs:
            lq, gt = _by_name(self.lq, "degraded photos"), _by_name(self.gt, "references")
            lonely = [f"{lq[n]} has no reference" for n in sorted(lq.keys() - gt.keys())]
            lonely += [f"{gt[n]} has no degraded photo" for n in sorted(gt.keys() - lq.keys())]
            counts = f"{self.lq} holds {len(lq)} images and {self.gt} holds {len(gt)}"
            report(lonely, what=f"{counts}; every file needs a partner of the same name")
            self._pairs = [(name, lq[name], gt[name]) for name in sorted(lq)]
        return self._pairs

    @property
    def masks(self) -> dict[str, Path]:
        """The mask files by name; empty without a folder of masks.

        Raises:
            DataError: the folder is missing or empty, or a pair has no mask.
        """
        if self.mask is not None and not self._masks:
            masks = _by_name(self.mask, "masks")
            lonely = [f"{lq} has no mask" for name, lq, _ in self.pairs if name not in masks]
            report(lonely, what=f"{self.mask}: every pair needs a mask of the same name")
            self._masks = masks
        return self._masks

    def check(self) -> None:
        """Look at the header of every file.

        Raises:
            DataError: files without a partner, unreadable, or of unequal size or channels.
        """
        found = [_mismatch(*pair) for pair in self.pairs]
        found += [_mask_mismatch(self.masks[name], lq) for name, lq, _ in self.pairs if self.masks]
        problems = [problem for problem in found if problem is not None]
        report(problems, what=f"{self.lq} and {self.gt} do not fit together")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int | SampleKey) -> Sample:
        name, lq_path, gt_path = self.pairs[index_of(key)]
        lq, gt = read_rgb(lq_path), read_rgb(gt_path)
        if lq.shape != gt.shape:
            raise DataError(f"{lq_path} and {gt_path} differ in size")
        images = [lq, gt]
        if self.masks:
            images.append(read_mask(self.masks[name]))
        if isinstance(key, SampleKey) and self.patch_size is not None:
            generator = generator_of(key)
            images = random_turn(random_patches(images, self.patch_size, generator), generator)
        elif not isinstance(key, SampleKey):
            images = [centre_crop(image, self.crop_size) for image in images]
        sample: Sample = {"lq": images[0], "gt": images[1], "name": name}
        if self.masks:
            sample["mask"] = images[2]
        return sample
