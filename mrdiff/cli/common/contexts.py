"""What ``mrdiff sample`` knows of the features of photos before the model sees them."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import dataclass

from mrdiff.cli.common.errors import CommandError
from mrdiff.networks.conditions import Context, FeatureError, known_features
from mrdiff.official.daclip import ImageController
from mrdiff.restoration.features import StoredFeatures
from mrdiff.restoration.restorer import Restorer

__all__ = ["Told", "read_told"]


@dataclass(frozen=True)
class Told:
    """Stored features by the names of photos.

    Attributes:
        stored: a file of them, if there is one.
        task: whose text feature is taken from it.
    """

    stored: StoredFeatures | None = None
    task: str | None = None

    def __call__(self, name: str) -> Context:
        """The features ``[1, D]`` that are known of a photo, perhaps none."""
        return {} if self.stored is None else self.stored.of(name, task=self.task)

    def check(self, restorer: Restorer, names: Collection[str]) -> None:
        """Refuse a run in which the model would not get what it takes.

        Args:
            restorer: the model.
            names: of all photos.

        Raises:
            FeatureError: one line that names the flags, or the file and the key.
        """
        taken = known_features(restorer.denoiser.network)
        if self.stored is not None:
            if not taken:
                where = f"--context {self.stored.path}"
                raise FeatureError(f"{where}: this model takes no features; leave it out")
            self.stored.check(taken)
        make = restorer.features
        made = make.features if isinstance(make, ImageController) else {}
        for name, width in taken.items():
            if made.get(name, width) != width:
                theirs = f"--daclip: it gives {made[name]} numbers as {name}"
                raise FeatureError(f"{theirs}, but this model takes {width}")
        for photo in names:
            if lacking := [name for name in taken if name not in {**made, **self(photo)}]:
                raise FeatureError(self._cure(photo, lacking))

    def bind(self, restorer: Restorer, name: str) -> None:
        """Have the model take the features of one photo for all that it is shown."""
        known, make = self(name), restorer.features
        if not known:
            return
        if make is None or not {*known_features(restorer.denoiser.network)} - {*known}:
            restorer.features = lambda _: known
        else:
            restorer.features = lambda image: {**make(image), **known}

    def _cure(self, photo: str, lacking: list[str]) -> str:
        """What to do about features that nothing gives."""
        if self.stored is None:
            what = f"this model takes features of each photo, {' and '.join(lacking)}"
            return f"{what}: give --daclip FILE, or --context FILE from mrdiff features"
        keys = " and no ".join(f"{photo}/{name}" for name in lacking)
        return f"--context {self.stored.path} has no {keys}: give --daclip FILE, too"


def read_told(options: argparse.Namespace) -> Told:
    """What ``--context`` and, for a model that takes features, ``--task`` tell.

    Raises:
        CommandError: the file is wrong, or there is no text feature of the task.
    """
    task = None if options.task == "auto" else options.task
    if options.context is None:
        if task is not None and options.daclip is not None:
            cure = f"--context FILE from mrdiff features --tasks {task}"
            raise CommandError(f"--task {task}: its features are to be stored: {cure}", status=2)
        return Told()  # a task without features is for the network itself
    try:
        told = Told(StoredFeatures.read(options.context), task)
        told("")  # says if there is no such task
    except FeatureError as error:
        raise CommandError(f"--context: {error}", status=2) from error
    return told
