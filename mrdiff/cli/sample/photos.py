"""The photos of a run: read ahead, restored in batches, written and measured behind."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from mrdiff.cli.common.features import PhotoFeatures
from mrdiff.cli.common.jobs import Job
from mrdiff.cli.sample.ahead import WriteBehind, read_ahead
from mrdiff.cli.sample.batches import Failed, Loaded, batches, load_all, masks
from mrdiff.cli.sample.pictures import write_uncertainty
from mrdiff.cli.sample.table import Quality, measure_job
from mrdiff.photo import PhotoError, like_original, to_rgb, write_photo
from mrdiff.restoration.restorer import Restorer
from mrdiff.system.text import shown

__all__ = ["Measured", "Outcome", "restore_all"]

Measured = Callable[[Job], Quality]

_AHEAD = 16_000_000  # pixels that wait to be restored


@dataclass
class Outcome:
    """Reasons of failures, quality of photos with a reference, and how many had which task.

    ``lost`` says which of the files beside the photos could not be written.
    """

    failures: dict[Job, str] = field(default_factory=dict)
    quality: dict[Job, Quality] = field(default_factory=dict)
    tasks: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Take over what became of other photos."""
        self.failures |= other.failures
        self.quality |= other.quality
        self.tasks += other.tasks
        self.lost += other.lost

    def attempt(self, jobs: Iterable[Job], work: Callable[[Job], None]) -> None:
        """Do something with each photo that has not failed yet."""
        for job in jobs:
            if job not in self.failures:
                try:
                    work(job)
                except PhotoError as error:
                    self.failures[job] = str(error)


class _Log:
    """Lines of JSON at the end of a file; the first that cannot be written is the last tried."""

    def __init__(self, path: Path | None, lost: list[str]) -> None:
        self._path, self._lost = path, lost
        self._file: FileIO | None = None

    def __call__(self, facts: dict[str, Any]) -> None:
        if self._path is None:
            return
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("ab", buffering=0)  # nothing waits for a full disk
            line = json.dumps(facts).encode() + b"\n"
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._lost.append(f"--log {self._path}: {error.strerror}: it is not whole")
            self._path = None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


@dataclass
class _Work:
    """What is done with each photo; all but ``restore`` in the thread behind the network."""

    restorer: Restorer
    samples: int
    features: PhotoFeatures
    measured: Measured
    maps: Path | None
    log: _Log
    outcome: Outcome

    def restore(
        self, batch: list[Loaded], on_call: Callable[[], None]
    ) -> Iterator[Callable[[], None]]:
        """Restore the photos of one batch; yields what is left to do for each."""
        start = time.perf_counter()
        images = [to_rgb(loaded.photo.image)[None] for loaded in batch]
        rgb = torch.cat(images) if len(images) > 1 else images[0]  # a large photo is not copied
        try:
            restored, std = self.restorer.draw(
                rgb,
                [loaded.job.name for loaded in batch],
                samples=self.samples,
                mask=masks(batch),
                features=[self.features(loaded.job.key) for loaded in batch],
                callback=lambda *_: on_call(),
                on_task=self.outcome.tasks.update,
            )
        except MemoryError:
            reason = "out of memory, try --batch_size 1 --tile 256"
            for loaded in batch:
                yield partial(self.fail, loaded.job, f"{loaded.job.source}: {reason}")
            return
        seconds = round((time.perf_counter() - start) / len(batch), 4)
        tile = self.restorer.tiler.side(*rgb.shape[-2:])
        facts = {"seconds": seconds, "nfe": self.restorer.sampler.nfe, "tile": tile}
        for loaded, image, spread in zip(batch, restored, std, strict=True):
            yield partial(self.write, loaded, image, spread, facts)

    def write(self, loaded: Loaded, rgb: Tensor, std: Tensor, facts: dict[str, Any]) -> None:
        """Write a photo, measure it if there is a reference, and log it."""
        job, photo = loaded.job, loaded.photo
        try:
            notes = list(photo.notes)
            restored = like_original(rgb, photo.image)
            write_photo(job.target, restored, photo, on_loss=notes.append)
            if self.maps is not None:
                write_uncertainty(std, job.target, self.maps)
            for note in notes:
                print(f"note: {shown(job.source)}: {shown(note)}", file=sys.stderr)
            if job.reference is not None:
                quality = self.outcome.quality[job] = self.measured(job)
                facts = {**facts, "psnr": round(quality.after["psnr"], 4)}
        except PhotoError as error:
            return self.fail(job, str(error))
        return self._log(job, output=str(job.target), **facts)

    def fail(self, job: Job, reason: str) -> None:
        self.outcome.failures[job] = reason
        self._log(job, error=reason)

    def _log(self, job: Job, **facts: Any) -> None:
        self.log({"file": str(job.source), **facts})


def _progress() -> Progress:
    bar = (TextColumn("restoring"), BarColumn(), MofNCompleteColumn(), TextColumn("photos"))
    return Progress(*bar, TimeRemainingColumn(), console=Console(stderr=True))


def restore_all(
    restorer: Restorer,
    jobs: list[Job],
    *,
    batch_size: int,
    samples: int = 1,
    maps: Path | None = None,
    features: PhotoFeatures | None = None,
    measured: Measured = measure_job,
    log: Path | None = None,
) -> Outcome:
    """Restore every job in order; none of their failures stops the others.

    ``batch_size`` photos of equal size go through a GPU at once. Of several ``samples`` the mean is
    written, and pictures of their deviation below ``maps``, the folder of all outputs. To ``log`` a
    line of JSON is appended for each photo.
    """
    features = features or PhotoFeatures()
    outcome = Outcome()
    lines = _Log(log, outcome.lost)
    with contextlib.closing(lines), _progress() as progress, WriteBehind() as behind:
        task = progress.add_task("restoring", total=len(jobs))
        work = _Work(restorer, samples, features, measured, maps, lines, outcome)
        read = read_ahead(load_all(jobs), size=lambda item: math.prod(item.size), budget=_AHEAD)
        together = 1 if restorer.device.type == "cpu" else batch_size  # see Restorer.restore
        for batch in batches(read, together):
            if isinstance(batch, Failed):
                behind(partial(work.fail, batch.job, batch.reason))
                progress.advance(task)
                continue
            calls = restorer.sampler.nfe * samples
            for left in work.restore(batch, partial(progress.advance, task, len(batch) / calls)):
                behind(left)
        progress.update(task, completed=len(jobs))
    return outcome
