"""The photos of a run: read ahead, restored in batches, written and measured behind."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import sys
import time
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

from mrdiff.cli.common.facts import facts_of
from mrdiff.cli.common.features import PhotoFeatures
from mrdiff.cli.common.jobs import Job
from mrdiff.cli.sample.ahead import InTurn, WriteBehind, read_ahead
from mrdiff.cli.sample.batches import Failed, Loaded, batches, masks, try_load
from mrdiff.cli.sample.pictures import write_uncertainty
from mrdiff.cli.sample.table import Quality
from mrdiff.photo import PhotoError, like_original, to_rgb, write_photo
from mrdiff.restoration.restorer import Judged, Restorer
from mrdiff.system.cores import available_cores
from mrdiff.system.text import shown

__all__ = ["Measured", "Outcome", "restore_all"]

Measured = Callable[[Job], Quality]

_AHEAD = 16_000_000  # pixels that wait to be read, to be restored and to be written, each
_THREADS = 8  # at most, that read, and as many that write, beside a GPU


@dataclass
class Outcome:
    """What became of each photo: the facts of its restoration, or why it failed, and its quality.

    ``lost`` says which of the files beside the photos could not be written.
    """

    done: dict[Job, dict[str, Any]] = field(default_factory=dict)
    failures: dict[Job, str] = field(default_factory=dict)
    quality: dict[Job, Quality] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Take over what became of other photos."""
        self.done |= other.done
        self.failures |= other.failures
        self.quality |= other.quality
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
    """What is done with each photo; all but ``restore`` in the threads behind the network.

    What is said of the photos is said in their order, that of ``numbers``.
    """

    restorer: Restorer
    samples: int
    features: PhotoFeatures
    measured: Measured | None
    maps: Path | None
    log: _Log
    outcome: Outcome
    in_turn: InTurn
    numbers: dict[Job, int]

    @property
    def calls(self) -> int:
        """Of the network for a photo."""
        return self.restorer.sampler.nfe * self.samples

    def restore(
        self, batch: list[Loaded], on_call: Callable[[], None] | None
    ) -> Iterator[Callable[[], None]]:
        """Restore the photos of one batch; yields what is left to do for each."""
        start = time.perf_counter()
        images = [to_rgb(loaded.photo.image)[None] for loaded in batch]
        rgb = torch.cat(images) if len(images) > 1 else images[0]  # a large photo is not copied
        judged = list[Judged]()
        try:
            restored, std = self.restorer.draw(
                rgb,
                [loaded.job.name for loaded in batch],
                samples=self.samples,
                mask=masks(batch),
                features=[self.features(loaded.job.key) for loaded in batch],
                callback=None if on_call is None else lambda *_: on_call(),
                on_task=judged.extend,
            )
        except MemoryError:
            if len(batch) > 1:  # each by itself may fit
                for loaded in batch:
                    yield from self.restore([loaded], on_call)
                return
            reason = "out of memory, try --batch_size 1 --tile 256"
            job = batch[0].job
            yield partial(self.fail, job, f"{job.source}: {reason}")
            return
        seconds = (time.perf_counter() - start) / len(batch)
        tile = {"tile": self.restorer.tiler.side(*rgb.shape[-2:])}
        tasks: list[Judged] | list[None] = judged or [None] * len(batch)
        each = zip(batch, restored, std, tasks, strict=True)
        for loaded, image, spread, task in each:
            facts = facts_of(self.restorer.sampler, task, seconds) | tile
            yield partial(self.write, loaded, image, spread, facts)

    def write(self, loaded: Loaded, rgb: Tensor, std: Tensor, facts: dict[str, Any]) -> None:
        """Write a photo, measure it if there is a reference, and log it."""
        job, photo, told = loaded.job, loaded.photo, list[str]()
        try:
            notes = list(photo.notes)
            restored = like_original(rgb, photo.image)
            write_photo(job.target, restored, photo, on_loss=notes.append)
            if self.maps is not None:
                write_uncertainty(std, job.target, self.maps)
            told = notes
            if job.reference is not None and self.measured is not None:
                quality = self.outcome.quality[job] = self.measured(job)
                facts = {**facts, "psnr": round(quality.after["psnr"], 4)}
        except PhotoError as error:
            facts = {"error": str(error)}
        else:
            facts = {"output": str(job.target), **facts}
        self._say(job, told, facts)

    def fail(self, job: Job, reason: str) -> None:
        self._say(job, [], {"error": reason})

    def _say(self, job: Job, notes: list[str], facts: dict[str, Any]) -> None:
        """Now, or when all has been said of those before it."""

        def say() -> None:
            for note in notes:
                print(f"note: {shown(job.source)}: {shown(note)}", file=sys.stderr)
            if "error" in facts:
                self.outcome.failures[job] = facts["error"]
            else:
                self.outcome.done[job] = facts
            self.log({"file": str(job.source), **facts})

        self.in_turn(self.numbers[job], say)


def _pixels(item: Loaded | Failed) -> int:
    return math.prod(item.size)


def _progress() -> Progress:
    bar = (TextColumn("restoring"), BarColumn(), MofNCompleteColumn(), TextColumn("photos"))
    return Progress(*bar, TimeRemainingColumn(), console=Console(stderr=True))


def restore_all(
    restorer: Restorer,
    jobs: list[Job],
    *,
    batch_size: int | None = None,
    samples: int = 1,
    maps: Path | None = None,
    features: PhotoFeatures | None = None,
    measured: Measured | None = None,
    log: Path | None = None,
) -> Outcome:
    """Restore every job in order; none of their failures stops the others.

    ``batch_size`` photos of equal size go through a GPU at once, or as many as it holds. Of several
    ``samples`` the mean is written, and pictures of their deviation below ``maps``, the folder of
    all outputs. To ``log`` a line of JSON is appended for each photo.
    Those with a reference are ``measured``.
    """
    outcome, in_turn, cuda = Outcome(), InTurn(), restorer.device.type == "cuda"
    lines, numbers = _Log(log, outcome.lost), {job: i for i, job in enumerate(jobs)}
    features = features or PhotoFeatures()
    work = _Work(restorer, samples, features, measured, maps, lines, outcome, in_turn, numbers)
    threads = max(1, min(_THREADS, available_cores() // 2)) if cuda else 1

    def most(height: int, width: int) -> int:
        if restorer.device.type == "cpu":  # see Restorer.restore
            return 1
        return batch_size or restorer.tiler.photos(height, width)

    behind = WriteBehind(budget=_AHEAD, threads=threads)
    read = read_ahead(try_load, jobs, size=_pixels, budget=_AHEAD, threads=threads)
    with contextlib.closing(lines), contextlib.closing(in_turn), _progress() as progress, behind:
        task, done = progress.add_task("restoring", total=len(jobs)), 0
        for batch in batches(read, most, budget=_AHEAD):
            if isinstance(batch, Failed):
                behind(partial(work.fail, batch.job, batch.reason))
                done += 1
            else:
                step = partial(progress.advance, task, len(batch) / work.calls)
                # On a GPU the calls of a run are one program, which nobody can watch.
                for left in work.restore(batch, None if cuda else step):
                    behind(left, size=math.prod(batch[0].size))
                done += len(batch)
            progress.update(task, completed=done)
    return outcome
