"""A tree of paired folders by task: ``ROOT/<task>/LQ`` and ``ROOT/<task>/GT``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from datamodules.datasets.base import RestorationDataset, Sample, Source, index_of
from datamodules.datasets.paired import PairedFolder
from datamodules.errors import DataError
from datamodules.randomness import SampleKey, generator_of_name, integer


class TaskFolders(RestorationDataset):
    """Pairs of several degradations, laid out as the data of DA-CLIP (Luo et al., ICLR 2024).

    In training every task is drawn equally often, however many pairs it has; elsewhere every pair
    comes once, the tasks in turns.

    Args:
        root: folder of the folders ``<task>/LQ``, ``<task>/GT`` and, if ``masks``, ``<task>/mask``.
        tasks: their names, in the order that numbers them; null for all folders, sorted. A task
            without a folder is not drawn: a model of many tasks may be tuned on one.
        masks: give every sample a mask, of ones for a task without a folder of masks.
        patch_size, crop_size: see :class:`PairedFolder`.
    """

    def __init__(
        self,
        root: str,
        *,
        tasks: Sequence[str] | None = None,
        masks: bool = False,
        patch_size: int | None = None,
        crop_size: int | None = None,
    ) -> None:
        self.root = Path(root).expanduser()
        self.given = None if tasks is None else tuple(tasks)
        self.masks, self.patch_size, self.crop_size = masks, patch_size, crop_size

    @cached_property
    def sets(self) -> dict[str, PairedFolder]:
        """The pairs of each task that has a folder.

        Raises:
            DataError: the root is missing or has no folder of a task, or one is likely misspelt.
        """
        sets = {task: self._pairs(self.root / task) for task in self._present()}
        for folder in (folder for pairs in sets.values() for folder in (pairs.lq, pairs.gt)):
            if not folder.is_dir():
                raise DataError(f"{folder}: no such folder; a task needs LQ and GT")
        return sets

    def _present(self) -> list[str]:
        """The tasks that have a folder."""
        known = self.tasks
        present = [task for task in known if (self.root / task).is_dir()]
        if not present:
            raise DataError(f"{self.root}: no folder of any task; they are {', '.join(known)}")
        others = {path.parent.name for path in self.root.glob("*/LQ")} - {*known}
        if others and len(present) < len(known):  # a name was misspelt, most likely
            absent = ", ".join(task for task in known if task not in present)
            names = ", ".join(sorted(others))
            raise DataError(f"{self.root}: {names}: not a task; without a folder are {absent}")
        return present

    def _pairs(self, folder: Path) -> PairedFolder:
        lq, gt, mask = (str(folder / part) for part in ("LQ", "GT", "mask"))
        masked = self.masks and Path(mask).is_dir()
        sides = {"patch_size": self.patch_size, "crop_size": self.crop_size}
        return PairedFolder(lq, gt, mask=mask if masked else None, **sides)

    def sources(self) -> list[Source]:
        """One a task; DataError as for :attr:`sets`."""
        pairs = (self._pairs(self.root / task) for task in self._present())
        return [source for each in pairs for source in each.sources()]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Their names, in the order of their numbers; DataError if the root has none."""
        if self.given is not None:
            return self.given
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; give that of <task>/LQ and <task>/GT")
        found = sorted(path.parent.name for path in self.root.glob("*/LQ"))
        if not found:
            raise DataError(f"{self.root}: no folders <task>/LQ and <task>/GT in it")
        return tuple(found)

    def check(self) -> None:
        """:meth:`PairedFolder.check` of every task."""
        for pairs in self.sets.values():
            pairs.check()

    def __len__(self) -> int:
        return sum(len(pairs) for pairs in self.sets.values())

    @cached_property
    def turns(self) -> list[tuple[int, int]]:
        """(task, pair) of every fixed sample: the tasks in turns, as long as each lasts."""
        lengths = [len(pairs) for pairs in self.sets.values()]
        places = [(task, pair) for task, n in enumerate(lengths) for pair in range(n)]
        return sorted(places, key=lambda place: (place[1], place[0]))

    def __getitem__(self, key: int | SampleKey) -> Sample:
        names, sets = list(self.sets), list(self.sets.values())
        inner: int | SampleKey
        if isinstance(key, SampleKey):
            generator = generator_of_name(key.seed, f"task {key.epoch} {key.item}")
            task = integer(0, len(sets) - 1, generator)
            pair = integer(0, len(sets[task]) - 1, generator)
            # A pair that comes twice in an epoch is cut in two ways.
            inner = SampleKey(key.seed, key.epoch * len(self) + key.item, pair)
        else:
            task, inner = self.turns[index_of(key)]
        sample = sets[task][inner]
        sample["name"] = f"{names[task]}/{sample['name']}"
        sample["degradation"] = self.tasks.index(names[task])
        if self.masks and "mask" not in sample:
            sample["mask"] = torch.ones_like(sample["lq"][:1])
        return sample
