"""``mrdiff sample``, the heavy half: restore every photo, report, measure and compare."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    track,
)

from mrdiff.cli.batches import Photo, batches, masks, read_photo
from mrdiff.cli.compare import comparison_paths, write_comparison
from mrdiff.cli.devices import check_device
from mrdiff.cli.errors import CommandError, one_line
from mrdiff.cli.jobs import Job, plan_jobs
from mrdiff.cli.report import Row, format_table, measure_job
from mrdiff.conditions import takes_mask
from mrdiff.metrics import LPIPS, find_lpips_weights
from mrdiff.photo import (
    PhotoError,
    join_alpha,
    read_rgb,
    write_image,
)
from mrdiff.restore import Restorer

__all__ = ["run_sampling"]

Failures = dict[Job, str]


def _restorer(options: argparse.Namespace) -> Restorer:
    check_device(options.device)
    try:
        return Restorer.from_checkpoint(
            options.checkpoint,
            device=options.device,
            sampler=options.sampler,
            nfe=options.nfe,
            grid=options.grid,
            temperature=options.temperature,
            seed=options.seed,
            tile=options.tile,
            task=options.task,
            allow=options.allow_package,
        )
    except ValueError as error:
        raise CommandError(str(error), status=2) from error


def _restore_batch(
    restorer: Restorer,
    batch: list[Photo],
    failures: Failures,
    on_step: Callable[[], None],
    on_task: Callable[[list[str]], None],
) -> None:
    """Restore and write the photos of one batch; failures are noted, not raised."""
    rgb = torch.stack([photo.colours.expand(3, -1, -1) for photo in batch])
    names = [photo.job.name for photo in batch]
    try:
        restored = restorer.restore(rgb, names, mask=masks(batch), on_step=on_step, on_task=on_task)
    except torch.OutOfMemoryError:
        reason = "out of GPU memory, try --batch_size 1 --tile 512"
        failures.update({photo.job: f"{photo.job.source}: {reason}" for photo in batch})
        return
    for photo, image in zip(batch, restored, strict=True):
        try:
            whole = join_alpha(image, photo.colours.shape[0], photo.alpha)
            write_image(photo.job.target, whole)
        except PhotoError as error:
            failures[photo.job] = str(error)


def _progress() -> Progress:
    columns = (
        TextColumn("restoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("photos"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


def _restore_all(restorer: Restorer, jobs: list[Job], size: int) -> Failures:
    """Restore every job; returns the failures with their reasons."""
    failures: Failures = {}
    with _progress() as progress:
        task = progress.add_task("restoring", total=len(jobs))
        done = 0
        judged: Counter[str] = Counter()
        for batch in batches(jobs, size, failures):
            step = partial(progress.advance, task, len(batch) / restorer.sampler.nfe)
            _restore_batch(restorer, batch, failures, step, judged.update)
            done += len(batch)
            progress.update(task, completed=done + len(failures))
        progress.update(task, completed=len(jobs))
    if judged:
        print("tasks: " + ", ".join(f"{name} {count}" for name, count in judged.most_common()))
    return failures


def _check_masks(options: argparse.Namespace, restorer: Restorer, jobs: list[Job]) -> None:
    """Refuse masks that the model would not look at; say how many photos have none."""
    if options.mask is None:
        return
    if not takes_mask(restorer.denoiser.network):
        raise CommandError("--mask: this model was trained without masks; leave it out", status=2)
    missing = sum(job.mask is None for job in jobs)
    if missing:
        print(f"{missing} photos have no mask in {options.mask}")


def _lpips(options: argparse.Namespace) -> LPIPS | None:
    """LPIPS if its weights are at hand, else None."""
    path = find_lpips_weights(options.lpips_weights) if options.reference else None
    return LPIPS.from_file(path) if path else None


def _measure_all(jobs: list[Job], lpips: LPIPS | None, failures: Failures) -> list[Row]:
    rows: list[Row] = []
    for job in jobs:
        if job in failures or job.reference is None:
            continue
        try:
            rows.append(measure_job(job, lpips))
        except PhotoError as error:
            failures[job] = str(error)
    return rows


def _print_table(options: argparse.Namespace, jobs: list[Job], lpips: LPIPS | None) -> Failures:
    failures: Failures = {}
    rows = _measure_all(jobs, lpips, failures)
    if rows:
        print(format_table(rows))
    missing = sum(job.reference is None for job in jobs)
    if missing:
        print(f"{missing} photos have no reference in {options.reference}")
    return failures


def run_sampling(options: argparse.Namespace) -> int:
    """Run the command with the flags of :mod:`mrdiff.cli.sample`; 1 if any photo failed.

    Raises:
        CommandError: nothing can be done at all.
        ValueError: of our own kinds, for a checkpoint or LPIPS weights that cannot be used.
    """
    jobs = plan_jobs(options.input, options.output, options.reference, options.mask)
    lpips = _lpips(options)
    todo = [job for job in jobs if not (options.skip_existing and job.target.is_file())]
    start = time.perf_counter()
    failures: Failures = {}
    restorer = _restorer(options) if todo or options.trajectory else None
    if restorer is not None:
        _check_masks(options, restorer, jobs)
        failures = _restore_all(restorer, todo, options.batch_size)
    seconds = time.perf_counter() - start
    done = [job for job in jobs if job not in failures]
    if options.reference is not None:
        failures |= _print_table(options, done, lpips)
    if options.compare:
        paths = comparison_paths(jobs, options.output)
        done_paths = {job: paths[job] for job in done if job not in failures}
        failures |= _compare_all(options, done_paths)
    if options.trajectory and restorer is not None:
        failures |= _follow_all(options, restorer, [job for job in done if job not in failures])
    for reason in failures.values():
        print(f"failed: {one_line(reason)}", file=sys.stderr)
    restored = sum(job not in failures for job in todo)
    print(
        f"restored {restored}, skipped {len(jobs) - len(todo)}, failed {len(failures)} "
        f"-> {options.output} ({seconds:.1f} s)"
    )
    return 1 if failures else 0


def _compare_all(options: argparse.Namespace, paths: Mapping[Job, Path]) -> Failures:
    failures: Failures = {}
    for job, path in paths.items():
        if options.skip_existing and path.is_file():
            continue
        try:
            write_comparison(job, path)
        except PhotoError as error:
            failures[job] = str(error)
    return failures


def _follow_all(options: argparse.Namespace, restorer: Restorer, jobs: list[Job]) -> Failures:
    from mrdiff.cli.trajectory import write_trajectory  # matplotlib: only if it is wanted

    failures: Failures = {}
    for job in track(jobs, "trajectories", console=Console(stderr=True)):
        folder = options.output / "trajectory" / job.target.relative_to(options.output)
        if options.skip_existing and (folder / "strip.png").is_file():
            continue
        try:
            photo = read_photo(job)
            rgb = photo.colours.expand(3, -1, -1)
            truth = None if job.reference is None else read_rgb(job.reference)
            write_trajectory(restorer, rgb, folder, name=job.name, truth=truth, mask=photo.mask)
        except PhotoError as error:
            failures[job] = str(error)
        except torch.OutOfMemoryError:
            failures[job] = f"{job.source}: out of GPU memory for its trajectory"
    return failures
