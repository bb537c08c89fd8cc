"""Pairs of files: a folder of degraded photos and a folder of what they should look like."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from PIL import Image

from datamodules.datasets.base import (
    RestorationDataset,
    Sample,
    Source,
    check_sizes,
    find_images,
    index_of,
    random_patches,
    random_turn,
)
from datamodules.errors import DataError, report
from datamodules.randomness import SampleKey, generator_of
from mrdiff.photo import (
    GREY_MODES,
    centre_crop,
    name_of,
    open_image,
    read_mask,
    read_rgb,
    upright_size,
)


def _by_name(folder: Path, role: str) -> dict[str, Path]:
    """The images of a folder by name; DataError for none, or two that differ in suffix only."""
    named: dict[str, Path] = {}
    twice = []
    for path in find_images(folder, role=role):
        name = name_of(path, folder)
        if name in named:
            twice.append(f"{named[name].name} and {path.name}")
        named[name] = path
    report(twice, what=f"{folder}: files of one name, leave one of each")
    return named


def looks(path: Path) -> tuple[tuple[int, int], str]:
    """(width, height) upright and "grey" or "colour", from the header alone.

    Raises:
        DataError: the file cannot be opened as an image.
    """
    try:
        with open_image(path) as image:
            # Of the class itself: PNG's own getexif decodes the whole file to find a late chunk.
            size = upright_size(image, Image.Image.getexif(image))
            return size, "grey" if image.mode in GREY_MODES else "colour"
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises about broken headers
        raise DataError(f"{path} is not a readable image") from error


def _mismatch(name: str, lq: Path, gt: Path, mask: Path | None) -> str | None:
    """What is wrong with a pair and its mask, or None."""
    try:
        ((width, height), kind), ((gt_width, gt_height), gt_kind) = looks(lq), looks(gt)
        fits = mask is None or looks(mask)[0] == (width, height)
    except DataError as error:
        return str(error)
    here, there = f"{width}x{height}", f"{gt_width}x{gt_height}"
    if here == there:
        here, there = kind, gt_kind
    if here != there:
        return f"{name} is {here} in the LQ folder and {there} in the GT folder"
    return None if fits else f"{mask} is not of the size of {lq}"


class PairedFolder(RestorationDataset):
    """Degraded photos and their references, matched by relative path without the suffix.

    Args:
        lq, gt: folders of degraded photos and of their references.
        mask: folder of masks, white where the photo is whole and black in holes.
        patch_size: side of the random training patch in pixels; null for whole images.
        crop_size: outside training, the side of the central part; null for the whole image.
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
        check_sizes(patch_size, crop_size)
        self.lq, self.gt = Path(lq).expanduser(), Path(gt).expanduser()
        self.mask = None if mask is None else Path(mask).expanduser()
        self.patch_size, self.crop_size = patch_size, crop_size

    def sources(self) -> list[Source]:
        """The folders of the pairs, as one."""
        cut = {"patch_size": self.patch_size, "crop_size": self.crop_size}
        return [Source(lq=self.lq, gt=self.gt, mask=self.mask, **cut)]

    @cached_property
    def pairs(self) -> list[tuple[str, Path, Path]]:
        """(name, LQ file, GT file), sorted by name.

        Raises:
            DataError: a folder is missing or empty, or a file has no partner.
        """
        lq, gt = _by_name(self.lq, "degraded photos"), _by_name(self.gt, "references")
        lonely = [f"{lq[n]} has no reference" for n in sorted(lq.keys() - gt.keys())]
        lonely += [f"{gt[n]} has no degraded photo" for n in sorted(gt.keys() - lq.keys())]
        counts = f"{self.lq} holds {len(lq)} images and {self.gt} holds {len(gt)}"
        report(lonely, what=f"{counts}; every file needs a partner of the same name")
        return [(name, lq[name], gt[name]) for name in sorted(lq)]

    @cached_property
    def masks(self) -> dict[str, Path]:
        """The mask files by name, none without their folder; DataError if a pair lacks one."""
        masks = {} if self.mask is None else _by_name(self.mask, "masks")
        lonely = [f"{lq} has no mask" for name, lq, _ in self.pairs if masks and name not in masks]
        report(lonely, what=f"{self.mask}: every pair needs a mask of the same name")
        return masks

    def check(self) -> None:
        """Look at the header of every file.

        Raises:
            DataError: files without a partner, unreadable, or of unequal size or channels.
        """
        found = [_mismatch(*pair, self.masks.get(pair[0])) for pair in self.pairs]
        report(list(filter(None, found)), what=f"{self.lq} and {self.gt} do not fit together")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int | SampleKey) -> Sample:
        name, lq_path, gt_path = self.pairs[index_of(key)]
        lq, gt = read_rgb(lq_path), read_rgb(gt_path)
        if lq.shape != gt.shape:
            raise DataError(f"{lq_path} and {gt_path} differ in size")
        images = [lq, gt, *([read_mask(self.masks[name])] if self.masks else [])]
        if isinstance(key, SampleKey) and self.patch_size is not None:
            generator = generator_of(key)
            images = random_turn(random_patches(images, self.patch_size, generator), generator)
        elif not isinstance(key, SampleKey):
            images = [centre_crop(image, self.crop_size) for image in images]
        sample: Sample = {"lq": images[0], "gt": images[1], "name": name}
        if self.masks:
            sample["mask"] = images[2]
        return sample
