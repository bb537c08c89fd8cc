"""Which photo goes where: inputs, outputs, references and the names that noise is drawn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mrdiff.cli.common.errors import CommandError
from mrdiff.photo import FORMATS, IMAGE_SUFFIXES, list_images

__all__ = ["Job", "plan_jobs", "spread"]


@dataclass(frozen=True)
class Job:
    """One photo to restore.

    Attributes:
        source: the degraded photo.
        target: the file to write.
        relative: ``source`` relative to the input folder.
        reference: the ground truth, if there is one.
        mask: white where the photo was kept and black in holes, if there is one.
        noise: what its noise is drawn from, if it is not its stem.
    """

    source: Path
    target: Path
    relative: Path
    reference: Path | None = None
    mask: Path | None = None
    noise: str | None = None

    @property
    def key(self) -> str:
        """What is stored of the photo is found by its relative path without the suffix."""
        return self.relative.with_suffix("").as_posix()

    @property
    def name(self) -> str:
        """What the noise is drawn from: the stem, the same for a file alone or in a folder."""
        return self.source.stem if self.noise is None else self.noise


def _targets(relatives: Sequence[Path], suffix: str | None) -> list[Path]:
    """Where the photos are written below the output: with a suffix, or with their own.

    What cannot be written as it was read, such as a GIF, becomes PNG.
    """
    wanted = [suffix or (p.suffix if p.suffix.lower() in FORMATS else ".png") for p in relatives]
    plain = [path.with_suffix(end) for path, end in zip(relatives, wanted, strict=True)]
    taken = Counter(plain)
    # a.gif beside a.png would overwrite each other: keep the whole name.
    return [
        target
        if target == path or taken[target] == 1
        else path.with_name(path.name + target.suffix)
        for path, target in zip(relatives, plain, strict=True)
    ]


def _inside(path: Path, folder: Path) -> bool:
    return folder.resolve() in path.resolve().parents


def _match(relative: Path, by_path: dict[str, Path], by_stem: dict[str, Path]) -> Path | None:
    key = relative.with_suffix("").as_posix()
    return by_path.get(key) or by_stem.get(relative.stem)


def _partners(folder: Path | None, relatives: Sequence[Path], flag: str) -> list[Path | None]:
    """The file in ``folder`` of each photo, matched by relative path, then by stem."""
    if folder is None:
        return [None] * len(relatives)
    found = list_images(folder)
    by_path = {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}
    counts = Counter(path.stem for path in found)
    by_stem = {path.stem: path for path in found if counts[path.stem] == 1}
    matched = [_match(relative, by_path, by_stem) for relative in relatives]
    if not any(matched):
        message = f"{flag} {folder}: no file there has the stem of any input"
        raise CommandError(message, status=2)
    return matched


def plan_jobs(
    source: Path,
    output: Path,
    reference: Path | None = None,
    mask: Path | None = None,
    *,
    suffix: str | None = None,
    noise: str | None = None,
) -> list[Job]:
    """Every photo of a file or folder, with what is written for it.

    Files below ``output`` are not inputs: it may lie within the input folder.

    Args:
        source: a file or a folder.
        output: the folder to write to.
        reference: of ground truths by stem.
        mask: of masks by stem.
        noise: what that of all photos is drawn from; None draws it anew for each.
        suffix: of all that is written, one of ``FORMATS``; None keeps those of the photos.

    Raises:
        CommandError: no photo, or an output that would overwrite an input or a reference.
    """
    if source.is_file():
        root, sources = source.parent, [source]
        if source.suffix.lower() not in IMAGE_SUFFIXES:
            raise CommandError(f"--input {source}: not an image file", status=2)
    else:
        root = source
        within = _inside(output, source)
        sources = [p for p in list_images(source) if not (within and _inside(p, output))]
    if not sources:
        raise CommandError(f"--input {source}: no images in this folder", status=2)
    relatives = [path.relative_to(root) for path in sources]
    references = _partners(reference, relatives, "--reference")
    masks = _partners(mask, relatives, "--mask")
    targets = _targets(relatives, suffix)
    jobs = [
        Job(path, output / target, relative, truth, kept, noise)
        for path, target, relative, truth, kept in zip(
            sources, targets, relatives, references, masks, strict=True
        )
    ]
    originals = {path.resolve() for path in (*sources, *filter(None, [*references, *masks]))}
    for job in jobs:
        if job.target.resolve() in originals:
            raise CommandError(f"--output would overwrite {job.target}: choose another", status=2)
    return jobs


def spread(jobs: list[Job], count: int) -> list[Job]:
    """``count`` of them at equal distances, or all."""
    if len(jobs) <= count:
        return jobs
    return [jobs[i * len(jobs) // count] for i in range(count)]
