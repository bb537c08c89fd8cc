"""A model and what a page asks of it: photos restored as ``mrdiff sample`` restores them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.facts import facts_of, told
from mrdiff.cli.common.jobs import Job, Photo
from mrdiff.cli.common.targets import plan_targets
from mrdiff.networks.protocol import known_tasks, takes_mask
from mrdiff.photo import (
    PhotoError,
    PhotoFile,
    like_original,
    name_of,
    read_photo,
    to_rgb,
    write_photo,
)
from mrdiff.restoration.ensemble import check_spread
from mrdiff.restoration.restorer import Judged, Preview, Restorer
from mrdiff.solvers.presets import make_sampler
from mrdiff.solvers.run import Sampler
from mrdiff.system.names import SAMPLERS
from mrdiff.system.text import shown
from mrdiff.tuning.checkpoint_sampler import describe_sampler

__all__ = ["OWN", "Restored", "Settings", "Studio", "Upload", "plan", "read_upload"]
__all__ += ["restore"]

_LONGEST = 200  # bytes of a name, to which some are added
OWN = ""  # the name of the sampler that the model brings


class Upload(NamedTuple):
    """A file that the browser sent, and what it is called there."""

    path: Path
    name: str


class Settings(NamedTuple):
    """What ``mrdiff sample`` has flags for."""

    task: str
    sampler: str
    nfe: int
    temperature: float
    seed: int
    samples: int


class Restored(NamedTuple):
    """The photo as it was written, ``[C, H, W]``; its deviation ``[3, H, W]``; what is said."""

    image: Tensor
    std: Tensor
    said: list[str]


def plan(uploads: Sequence[Upload], output: Path) -> list[Job]:
    """What is written for each, and what its noise is drawn from: as if they lay in a folder."""
    names = [Path(Path(name).name or "photo") for _, name in uploads]
    for name in names:
        if len(os.fsencode(name)) > _LONGEST or "\0" in name.name:
            raise PhotoError(f"{shown(name.name[:40])}…: no file can have such a name")
    each = zip(uploads, names, strict=True)
    photos = [Photo(up.path, name, noise=name_of(name, Path())) for up, name in each]
    return plan_targets(photos, output)


def read_upload(upload: Upload) -> PhotoFile:
    """Read a photo; a PhotoError has its own name, not that of the copy here."""
    try:
        content = upload.path.read_bytes()
    except OSError as error:
        raise PhotoError(f"{upload.name}: no longer here: choose it again") from error
    return read_photo(content, name=upload.name)


class Studio:
    """A model with whatever sampler and task is asked for.

    Args:
        loaded: has the model, and the sampler that comes with it.
    """

    def __init__(self, loaded: Restorer) -> None:
        self._denoiser = denoiser = loaded.denoiser
        self._own = describe_sampler(loaded.sampler)
        self.tasks, self.takes_mask = known_tasks(denoiser.network), takes_mask(denoiser.network)
        named = {name: make_sampler(name) for name in SAMPLERS}
        self.samplers = [name for name, one in named.items() if one.suits(denoiser.process)]

    def sampler(
        self, name: str, *, nfe: int | None = None, temperature: float | None = None
    ) -> Sampler:
        """The sampler of a name or :data:`OWN`; a ValueError for what is none."""
        return make_sampler(name or self._own, nfe=nfe, temperature=temperature)

    def prepare(self, settings: Settings) -> Restorer:
        """The model as the settings want it; a CommandError says what of them does not fit."""
        try:
            sampler = self.sampler(
                settings.sampler, nfe=settings.nfe, temperature=settings.temperature
            )
            check_spread(sampler, self._denoiser.process, settings.samples)
            return Restorer(self._denoiser, sampler=sampler, seed=settings.seed, task=settings.task)
        except ValueError as error:
            raise CommandError(str(error)) from error


def restore(
    restorer: Restorer,
    job: Job,
    photo: PhotoFile,
    samples: int,
    holes: Tensor | None,
    callback: Preview,
) -> Restored:
    """Restore a photo that was read, and write the job's target.

    ``holes`` ``[h, w]``, true where the photo is to be filled in, may be of another size;
    ``callback`` is that of :meth:`Restorer.restore`.

    Raises:
        PhotoError: it cannot be written.
        MemoryError: not even the smallest tiles fit.
    """
    start, rgb, mask = time.perf_counter(), to_rgb(photo.image)[None], None
    if holes is not None:
        mask = functional.interpolate((~holes[None, None]).float(), rgb.shape[-2:])
    # On a GPU the calls of a run are one program, which nobody can watch.
    watched = None if restorer.device.type == "cuda" else callback
    judged = list[Judged]()
    restored, std = restorer.draw(
        rgb, [job.name], samples=samples, mask=mask, callback=watched, on_task=judged.extend
    )
    seconds = time.perf_counter() - start
    facts = facts_of(restorer.sampler, judged[0] if judged else None, seconds)
    said = told(facts, sure=restorer.task == "auto")
    if samples > 1:
        said.insert(-1, f"{samples} samples")
    image, notes = like_original(restored[0], photo.image), list(photo.notes)
    write_photo(job.target, image, photo, on_loss=notes.append)
    return Restored(image, std[0], [*said, *(f"note: {note}" for note in notes)])
