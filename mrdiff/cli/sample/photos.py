"""The photos of a run: read ahead, restored in batches, written behind, told of in a log."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

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

from mrdiff.cli.common.ahead import WriteBehind, read_ahead
from mrdiff.cli.common.batches import Failed, Loaded, batches, load, masks
from mrdiff.cli.common.contexts import Told
from mrdiff.cli.common.jobs import Job
from mrdiff.cli.sample.table import Row, measure_job
from mrdiff.photo import PhotoError, like_original, to_rgb, write_photo
from mrdiff.restoration.restorer import Restorer

__all__ = ["Failures", "Outcome", "restore_all"]

Failures = dict[Job, str]
Measured = Callable[[Job], Row]

_AHEAD = 16_000_000  # pixels that wait to be restored


@dataclass
class Outcome:
    """What became of the photos.

    Attributes:
        failures: with their reasons.
        rows: quality of those with a reference.
        tasks: how many photos the model took for each task.
    """

    failures: Failures = field(default_factory=dict)
    rows: dict[Job, Row] = field(default_factory=dict)
    tasks: Counter[str] = field(default_factory=Counter)


class _Finishing:
    """What is done with a restored photo, in the thread behind the network."""

    def __init__(
        self, outcome: Outcome, measured: Measured, log: TextIO | None, maps: Path | None
    ) -> None:
        self.outcome, self.measured, self.log, self.maps = outcome, measured, log, maps

    def fail(self, job: Job, reason: str) -> None:
        self.outcome.failures[job] = reason
        self._tell(job, error=reason)

    def write(self, loaded: Loaded, rgb: Tensor, std: Tensor, facts: dict[str, Any]) -> None:
        """Write a photo, measure it if there is a reference, and tell of it."""
        job, photo = loaded.job, loaded.photo
        try:
            write_photo(job.target, like_original(rgb, photo.image), photo)
            if self.maps is not None:
                from mrdiff.cli.sample.uncertainty import write_uncertainty  # matplotlib: if wanted

                write_uncertainty(std, job.target, self.maps)
        except PhotoError as error:
            return self.fail(job, str(error))
        for note in photo.notes:
            print(f"note: {job.source}: {note}", file=sys.stderr)
        if job.reference is not None:
            try:
                row = self.outcome.rows[job] = self.measured(job)
            except PhotoError as error:
                return self.fail(job, str(error))
            facts = {**facts, "psnr": round(row.after["psnr"], 4)}
        return self._tell(job, output=str(job.target), **facts)

    def _tell(self, job: Job, **facts: Any) -> None:
        if self.log is not None:
            print(json.dumps({"file": str(job.source), **facts}), file=self.log, flush=True)


def _progress() -> Progress:
    columns = (
        TextColumn("restoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("photos"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


@contextlib.contextmanager
def _opened(log: Path | None) -> Iterator[TextIO | None]:
    if log is None:
        yield None
        return
    with open(log, "a", encoding="utf-8") as stream:
        yield stream


def _loads(jobs: list[Job]) -> Iterator[Loaded | Failed]:
    for job in jobs:
        try:
            yield load(job)
        except PhotoError as error:
            yield Failed(job, str(error))


def _pixels(item: Loaded | Failed) -> int:
    return item.size[0] * item.size[1] if isinstance(item, Loaded) else 0


def _restore_batch(
    restorer: Restorer,
    batch: list[Loaded],
    finishing: _Finishing,
    samples: int,
    told: Told,
    on_call: Callable[[], None],
) -> Iterator[Callable[[], None]]:
    """Restore the photos of one batch; yields what is left to do for each."""
    start = time.perf_counter()
    images = [to_rgb(loaded.photo.image) for loaded in batch]
    rgb = torch.stack(images) if len(images) > 1 else images[0][None]
    names = [loaded.job.name for loaded in batch]
    try:
        restored, std = restorer.draw(
            rgb,
            names,
            samples=samples,
            mask=masks(batch),
            features=[told(loaded.job.key) for loaded in batch],
            callback=lambda *_: on_call(),
            on_task=finishing.outcome.tasks.update,
        )
    except MemoryError:
        reason = "out of memory, try --batch_size 1 --tile 256"
        for loaded in batch:
            yield partial(finishing.fail, loaded.job, f"{loaded.job.source}: {reason}")
        return
    seconds = round((time.perf_counter() - start) / len(batch), 4)
    tile = restorer.tiler.side(*rgb.shape[-2:])
    facts = {"seconds": seconds, "nfe": restorer.sampler.nfe, "tile": tile}
    for loaded, image, spread in zip(batch, restored, std, strict=True):
        yield partial(finishing.write, loaded, image, spread, facts)


def restore_all(
    restorer: Restorer,
    jobs: list[Job],
    *,
    batch_size: int,
    samples: int = 1,
    maps: Path | None = None,
    told: Told | None = None,
    measured: Measured = measure_job,
    log: Path | None = None,
) -> Outcome:
    """Restore every job; none of their failures stops the others.

    Args:
        restorer: the model.
        jobs: in the order in which they are done.
        batch_size: photos of equal size at once, on a GPU.
        samples: of each photo, whose mean is written.
        maps: the folder of all outputs, if pictures of their deviation are wanted.
        told: the features that are known.
        measured: how those with a reference are.
        log: to which a line of JSON is appended for each photo.
    """
    outcome, told = Outcome(), told or Told()
    with _opened(log) as stream, _progress() as progress, WriteBehind() as behind:
        shown = progress.add_task("restoring", total=len(jobs))
        finishing = _Finishing(outcome, measured, stream, maps)
        read = read_ahead(_loads(jobs), size=_pixels, budget=_AHEAD)
        together = 1 if restorer.device.type == "cpu" else batch_size  # see Restorer.restore
        for batch in batches(read, together):
            if isinstance(batch, Failed):
                behind(partial(finishing.fail, *batch))
                progress.advance(shown)
                continue
            calls = restorer.sampler.nfe * samples
            step = partial(progress.advance, shown, len(batch) / calls)
            for work in _restore_batch(restorer, batch, finishing, samples, told, step):
                behind(work)
        progress.update(shown, completed=len(jobs))
    return outcome
