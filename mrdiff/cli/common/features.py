"""The features of photos that ``--context`` and ``--daclip`` give a model which takes some."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mrdiff.cli.common.errors import CommandError
from mrdiff.networks.conditions import FeatureError
from mrdiff.networks.protocol import Context, known_features
from mrdiff.official.daclip import ImageController
from mrdiff.restoration.features import StoredFeatures
from mrdiff.restoration.restorer import Restorer

__all__ = ["PhotoFeatures", "read_features"]


@dataclass(frozen=True)
class PhotoFeatures:
    """Features stored by the names of photos; the text feature is that of ``task``, if it is set.

    Called with a photo's name it gives those that are known, ``[1, D]``, perhaps none.
    """

    stored: StoredFeatures | None = None
    task: str | None = None

    def __call__(self, photo: str) -> Context:
        return {} if self.stored is None else self.stored.of(photo, task=self.task)

    def check(self, restorer: Restorer, photos: Collection[str]) -> None:
        """Raise FeatureError if the model would not get what it takes for each of the photos."""
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
        for photo in photos:
            if lacking := [name for name in taken if name not in {**made, **self(photo)}]:
                raise FeatureError(self._cure(photo, lacking))

    def _cure(self, photo: str, lacking: list[str]) -> str:
        if self.stored is None:
            what = f"this model takes features of each photo, {' and '.join(lacking)}"
            return f"{what}: give --daclip FILE, or --context FILE from mrdiff features"
        keys = " and no ".join(f"{photo}/{name}" for name in lacking)
        return f"--context {self.stored.path} has no {keys}: give --daclip FILE, too"


def read_features(context: Path | None, *, task: str, daclip: Path | None) -> PhotoFeatures:
    """The features of the file ``context``, with ``--task`` for a model that takes features.

    A file that is wrong, or that has no text feature of the task, is a CommandError.
    """
    named = None if task == "auto" else task
    if context is None:
        if named is not None and daclip is not None:
            cure = f"--context FILE from mrdiff features --tasks {task}"
            raise CommandError(f"--task {task}: its features are to be stored: {cure}", status=2)
        return PhotoFeatures()  # a task without features is for the network itself
    try:
        features = PhotoFeatures(StoredFeatures.read(context), named)
        features("")  # says if there is no such task
    except FeatureError as error:
        raise CommandError(f"--context: {error}", status=2) from error
    return features
