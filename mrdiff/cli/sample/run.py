"""``mrdiff sample``, the heavy half: restore every photo, report, measure and compare."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, track

from mrdiff.cli.common.batches import load
from mrdiff.cli.common.contexts import Told, read_told
from mrdiff.cli.common.devices import check_device, speed_up
from mrdiff.cli.common.errors import CommandError, one_line
from mrdiff.cli.common.jobs import Job, plan_jobs
from mrdiff.cli.sample.compare import comparison_paths, write_comparison
from mrdiff.cli.sample.photos import Failures, Measured, Outcome, restore_all
from mrdiff.cli.sample.pipe import PIPE, is_piped, run_piped
from mrdiff.cli.sample.table import Row, format_table, measure_job
from mrdiff.cli.sample.video import VIDEO_SUFFIXES, restore_video
from mrdiff.metrics import LPIPS, find_lpips_weights
from mrdiff.networks.conditions import takes_mask
from mrdiff.networks.local_pooling import localise
from mrdiff.official.daclip import ImageController
from mrdiff.photo import PhotoError, read_rgb, to_rgb
from mrdiff.restoration.ensemble import check_spread
from mrdiff.restoration.restorer import Restorer

__all__ = ["run_sampling"]


def _accept(megapixels: int) -> None:
    """Set Pillow's limit against decompression bombs, and keep its own remarks to itself."""
    Image.MAX_IMAGE_PIXELS = megapixels * 500_000  # it warns from there, and refuses twice that
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def _restorer(options: argparse.Namespace, told: Told, names: Collection[str]) -> Restorer:
    """The model, which gets what it takes for the photos of these names."""
    check_device(options.device)
    try:
        restorer = Restorer.from_checkpoint(
            options.checkpoint,
            device="cpu" if _is_spread(options) else options.device,  # Lightning moves it
            sampler=options.sampler,
            nfe=options.nfe,
            grid=options.grid,
            temperature=options.temperature,
            seed=options.seed,
            tile=options.tile,
            task="auto" if options.daclip or options.context else options.task,
            features=ImageController.from_file(options.daclip) if options.daclip else None,
            allow=options.allow_package,
        )
        check_spread(restorer.sampler, options.samples)
        told.check(restorer, names)
        if options.local_pooling:
            localise(restorer.denoiser.network, options.local_pooling)
        speed_up(options, restorer.denoiser)
        return restorer
    except ValueError as error:
        raise CommandError(str(error), status=2) from error


def _restorer_of_one(options: argparse.Namespace) -> Restorer:
    """The model for a single photo or video."""
    told, name = read_told(options), "stdin" if options.input == PIPE else options.input.stem
    restorer = _restorer(options, told, [name])
    told.bind(restorer, name)
    return restorer


def _restore(
    options: argparse.Namespace,
    restorer: Restorer,
    jobs: list[Job],
    measured: Measured,
    told: Told,
) -> Outcome | None:
    """Restore the jobs in one process or in several; None in all but the first of several."""
    if options.mask is not None and not takes_mask(restorer.denoiser.network):
        raise CommandError("--mask: this model was trained without masks; leave it out", status=2)
    work = partial(
        restore_all,
        restorer,
        batch_size=options.batch_size,
        samples=options.samples,
        maps=options.output if options.samples > 1 else None,
        told=told,
        measured=measured,
        log=options.log,
    )
    if not _is_spread(options):
        return work(jobs)
    from mrdiff.cli.sample.processes import restore_spread  # Lightning: seconds

    accelerator = "gpu" if options.device.startswith("cuda") else options.device
    many = {"devices": options.devices, "nodes": options.num_nodes}
    return restore_spread(restorer, jobs, work, accelerator=accelerator, **many)


def _is_spread(options: argparse.Namespace) -> bool:
    return int(options.devices * options.num_nodes) > 1


def _say_what_is_missing(options: argparse.Namespace, jobs: list[Job]) -> None:
    missing = sum(job.mask is None for job in jobs)
    if missing and options.mask is not None:
        print(f"{missing} photos have no mask in {options.mask}")


def _lpips(options: argparse.Namespace) -> LPIPS | None:
    """LPIPS if its weights are at hand, else None."""
    path = find_lpips_weights(options.lpips_weights) if options.reference else None
    return LPIPS.from_file(path) if path else None


def _measure_skipped(jobs: list[Job], measured: Measured, outcome: Outcome) -> None:
    """Quality of what an earlier run has restored."""
    for job in jobs:
        if job.reference is not None:
            try:
                outcome.rows[job] = measured(job)
            except PhotoError as error:
                outcome.failures[job] = str(error)


def _print_table(options: argparse.Namespace, jobs: list[Job], outcome: Outcome) -> None:
    rows = [outcome.rows[job] for job in jobs if job in outcome.rows]
    if rows:
        print(format_table(rows))
    missing = sum(job.reference is None for job in jobs)
    if missing:
        print(f"{missing} photos have no reference in {options.reference}")


def _restore_clip(options: argparse.Namespace) -> int:
    """Restore one video."""
    target = options.output / options.input.name
    if target.resolve() == options.input.resolve():
        raise CommandError(f"--output would overwrite {target}: choose another", status=2)
    if options.skip_existing and target.is_file():
        print(f"restored 0 frames, {target} is there already")
        return 0
    start = time.perf_counter()
    restorer = _restorer_of_one(options)
    columns = (TextColumn("restoring"), MofNCompleteColumn(), TextColumn("frames"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        shown = bar.add_task("", total=None)
        count = restore_video(restorer, options.input, target, on_frame=lambda: bar.advance(shown))
    print(f"restored {count} frames -> {target} ({time.perf_counter() - start:.1f} s)")
    return 0


def _report(
    options: argparse.Namespace, restorer: Restorer | None, rows: Mapping[Job, Row]
) -> None:
    from mrdiff.cli.sample.html import write_report  # matplotlib and jinja2: only if it is wanted

    facts = [f"checkpoint {options.checkpoint.name}"]
    if restorer is not None:
        sampler = f"sampler {options.sampler}" if options.sampler else "the checkpoint's sampler"
        facts += [sampler, f"{restorer.sampler.nfe} calls", f"seed {options.seed}"]
    write_report(options.report, rows, facts=", ".join(facts), protocol=options.protocol)


def run_sampling(options: argparse.Namespace) -> int:
    """Run the command with the flags of :mod:`mrdiff.cli.sample.command`; 1 if any photo failed.

    Raises:
        CommandError: nothing can be done at all.
        ValueError: of our own kinds, for a checkpoint or LPIPS weights that cannot be used.
    """
    _accept(options.max_megapixels)
    if is_piped(options):
        return run_piped(options, _restorer_of_one)
    if options.input.suffix.lower() in VIDEO_SUFFIXES and options.input.is_file():
        return _restore_clip(options)
    suffix = f".{options.format}" if options.format else None
    paths = (options.input, options.output, options.reference, options.mask)
    jobs = plan_jobs(*paths, suffix=suffix, noise="" if options.same_noise else None)
    measured = partial(measure_job, lpips=_lpips(options), protocol=options.protocol)
    todo = [job for job in jobs if not (options.skip_existing and job.target.is_file())]
    start = time.perf_counter()
    told, shown = read_told(options), jobs if options.trajectory else todo
    restorer = _restorer(options, told, [job.key for job in shown]) if shown else None
    outcome = _restore(options, restorer, todo, measured, told) if restorer and todo else Outcome()
    if outcome is None:  # the first of several processes goes on alone
        return 0
    _say_what_is_missing(options, jobs)
    seconds = time.perf_counter() - start
    failures = outcome.failures
    if outcome.tasks:
        counts = (f"{name} {count}" for name, count in outcome.tasks.most_common())
        print("tasks: " + ", ".join(counts))
    if options.reference is not None:
        _measure_skipped([job for job in jobs if job not in {*todo}], measured, outcome)
        _print_table(options, [job for job in jobs if job.target.is_file()], outcome)
    if options.report is not None and outcome.rows:
        _report(options, restorer, {job: outcome.rows[job] for job in jobs if job in outcome.rows})
    if options.compare:
        pictures = comparison_paths(jobs, options.output)
        done = {job: path for job, path in pictures.items() if job not in failures}
        failures |= _compare_all(options, done)
    if options.trajectory and restorer is not None:
        fine = [job for job in jobs if job not in failures]
        failures |= _follow_all(options, restorer, fine, told)
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


def _follow_all(
    options: argparse.Namespace, restorer: Restorer, jobs: list[Job], told: Told
) -> Failures:
    from mrdiff.cli.sample.trajectory import write_trajectory  # matplotlib: only if it is wanted

    failures: Failures = {}
    for job in track(jobs, "trajectories", console=Console(stderr=True)):
        folder = options.output / "trajectory" / job.target.relative_to(options.output)
        if options.skip_existing and (folder / "strip.png").is_file():
            continue
        try:
            loaded = load(job)
            rgb = to_rgb(loaded.photo.image)
            truth = None if job.reference is None else read_rgb(job.reference)
            write_trajectory(
                restorer,
                rgb,
                folder,
                name=job.name,
                truth=truth,
                mask=loaded.mask,
                features=told(job.key),
            )
        except PhotoError as error:
            failures[job] = str(error)
        except torch.OutOfMemoryError:
            failures[job] = f"{job.source}: out of GPU memory for its trajectory"
    return failures
