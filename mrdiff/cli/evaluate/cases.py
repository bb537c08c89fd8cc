"""The pairs of an evaluation: which photos, with which task, and where each is kept."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.jobs import Photo, describe_unread, find_photos, spread
from mrdiff.cli.evaluate.parts import FOLDER
from mrdiff.photo import Found
from mrdiff.system.text import shown

__all__ = ["Case", "Cases", "find_cases"]

_SHOWN = 3  # photos of a task on the page


@dataclass(frozen=True)
class Case:
    """A photo of a task's folder.

    Attributes:
        kept: the file of what was measured of it.
        pictures: the folder of its small pictures, if the page may show it.
        told: the task that the model is told, or ``"auto"``.
    """

    task: str
    photo: Photo
    told: str
    kept: Path
    pictures: Path | None

    @property
    def name(self) -> str:
        """As it is named to people."""
        return shown(f"{self.task}/{self.photo.relative.as_posix()}")


@dataclass
class Cases:
    """All pairs; what of the folders is none, by name; and what is to be said once."""

    pairs: list[Case] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_cases(
    options: argparse.Namespace, sets: Mapping[str, Path], known: Sequence[str]
) -> Cases:
    """The pairs of the sets, for a model that knows some tasks.

    Raises:
        CommandError: a set has no pair.
    """
    cases = Cases()
    for task, folder in sets.items():
        photos = _photos(task, folder, options.output, cases)
        told = options.task or (task if task in known else "auto")
        chosen = spread(photos, options.images or len(photos))
        shown_ones = {photo.source for photo in spread(chosen, _SHOWN)}
        for photo in chosen:
            # As shown, since safetensors opens no names that are not UTF-8.
            below = Path(shown(Path(task, photo.relative)))
            kept = options.output / FOLDER / below.with_name(f"{below.name}.safetensors")
            pictures = options.output / "pictures" / below if photo.source in shown_ones else None
            cases.pairs.append(Case(task, photo, told, kept, pictures))
    return cases


def _photos(task: str, folder: Path, output: Path, cases: Cases) -> list[Photo]:
    """The photos of a task that have a partner, with masks if all have one."""
    found: list[Found] = []
    lq, gt, masks = (folder / part for part in ("LQ", "GT", "mask"))
    try:
        photos = find_photos(lq, reference=gt, output=output, passed_over=found.append)
    except CommandError as error:
        reason = str(error).removeprefix("--input ").removeprefix("--reference ")
        raise CommandError(f"--data {reason}", status=2) from error
    cases.failures |= {shown(path): reason for path, reason in found[0].failed.items()}
    cases.notes += [f"left out: {shown(line)}" for line in describe_unread(found[0].unread)]
    for photo in photos:
        if photo.reference is None:
            cases.failures[shown(photo.source)] = f"has no partner in {shown(gt)}"
    if masks.is_dir():
        masked = _masked(lq, masks, output)
        if all(photo.mask for photo in masked):
            where = {photo.source: photo.mask for photo in masked}
            photos = [Photo(**{**vars(p), "mask": where[p.source]}) for p in photos]
        else:
            count = sum(photo.mask is not None for photo in masked)
            few = f"{task}: {count} of {len(masked)} photos have a mask: none is used"
            cases.notes.append(f"note: {shown(few)}")
    return [photo for photo in photos if photo.reference is not None]


def _masked(lq: Path, masks: Path, output: Path) -> list[Photo]:
    try:
        return find_photos(lq, mask=masks, output=output, passed_over=lambda found: None)
    except CommandError:  # not one has a mask
        return find_photos(lq, output=output, passed_over=lambda found: None)
