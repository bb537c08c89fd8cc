"""``mrdiff sample`` with torch: one photo through a pipe, a video, or all photos of a folder."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Collection
from functools import partial

from PIL import Image
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, track

from mrdiff.acceleration.backends import OpenVINONetwork, use_inductor
from mrdiff.acceleration.ranges import read_ranges
from mrdiff.checkpoints.reading import read_checkpoint
from mrdiff.cli.common.errors import CommandError, one_line
from mrdiff.cli.common.features import PhotoFeatures, read_features
from mrdiff.cli.common.jobs import Job, find_photos, plan_targets
from mrdiff.cli.common.models import check_device, load_restorer
from mrdiff.cli.common.paths import PIPE
from mrdiff.cli.sample.photos import Measured, Outcome, restore_all
from mrdiff.cli.sample.pictures import comparison_paths, write_comparison
from mrdiff.cli.sample.pipe import restore_pipe
from mrdiff.cli.sample.table import format_table, measure_job
from mrdiff.cli.sample.video import VIDEO_SUFFIXES, restore_video
from mrdiff.metrics import LPIPS
from mrdiff.networks.local_pooling import localise
from mrdiff.restoration.ensemble import check_spread
from mrdiff.restoration.restorer import Restorer

__all__ = ["run_sampling"]


def run_sampling(options: argparse.Namespace) -> int:
    """Run the command with the flags of :mod:`mrdiff.cli.sample.command`; 1 if any photo failed.

    Raises:
        CommandError: nothing can be done at all.
        ValueError: of our own kinds, for LPIPS weights or a pipe's photo that cannot be used.
    """
    # Pillow warns of decompression bombs from its limit on, and refuses twice that.
    Image.MAX_IMAGE_PIXELS = options.max_megapixels * 500_000
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    features = read_features(options.context, task=options.task, daclip=options.daclip)
    if options.output == PIPE:
        return _run_pipe(options, features)
    if options.input.suffix.lower() in VIDEO_SUFFIXES and options.input.is_file():
        return _run_video(options, features)
    return _run_photos(options, features)


def _open_model(
    options: argparse.Namespace, features: PhotoFeatures, photos: Collection[str]
) -> Restorer:
    """The model for the photos of these names; the checkpoint is opened here and nowhere else."""
    check_device(options.device)
    try:
        checkpoint = read_checkpoint(options.checkpoint)
        restorer = load_restorer(
            options,
            checkpoint,
            features,
            photos,
            device="cpu" if _processes(options) > 1 else options.device,  # Lightning moves it
            tile=options.tile,
            seed=options.seed,
            grid=options.grid,
            temperature=options.temperature,
        )
        network = restorer.denoiser.network
        check_spread(restorer.sampler, options.samples)
        if options.local_pooling:
            localise(network, options.local_pooling)
        if options.compile:
            use_inductor(network)
        if options.backend == "openvino":
            ranges = read_ranges(checkpoint) if options.precision == "int8" else None
            precision = options.precision or "f32"
            network = OpenVINONetwork(network, precision=precision, ranges=ranges)
            restorer.denoiser.network = network
    except ValueError as error:
        raise CommandError(str(error), status=2) from error
    return restorer


def _processes(options: argparse.Namespace) -> int:
    return int(options.devices * options.num_nodes)


def _run_pipe(options: argparse.Namespace, features: PhotoFeatures) -> int:
    name = "stdin" if options.input == PIPE else options.input.stem
    restorer = _open_model(options, features, [name])
    suffix = f".{options.format}" if options.format else None
    restore_pipe(restorer, options.input, name=name, features=features(name), suffix=suffix)
    return 0


def _run_video(options: argparse.Namespace, features: PhotoFeatures) -> int:
    source, target = options.input, options.output / options.input.name
    if target.resolve() == source.resolve():
        raise CommandError(f"--output would overwrite {target}: choose another", status=2)
    if options.skip_existing and target.is_file():
        print(f"restored 0 frames, {target} is there already")
        return 0
    start = time.perf_counter()
    restorer = _open_model(options, features, [source.stem])
    columns = (TextColumn("restoring"), MofNCompleteColumn(), TextColumn("frames"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        advance = partial(bar.advance, bar.add_task("", total=None))
        known = features(source.stem)
        count = restore_video(restorer, source, target, features=known, on_frame=advance)
    print(f"restored {count} frames -> {target} ({time.perf_counter() - start:.1f} s)")
    return 0


def _run_photos(options: argparse.Namespace, features: PhotoFeatures) -> int:
    jobs = _plan(options)
    todo = [job for job in jobs if not (options.skip_existing and job.target.is_file())]
    lpips = LPIPS.find(options.lpips_weights) if options.reference else None
    measured = partial(measure_job, lpips=lpips, protocol=options.protocol)
    start, restorer, outcome = time.perf_counter(), None, Outcome()
    if shown := jobs if options.trajectory else todo:
        restorer = _open_model(options, features, [job.key for job in shown])
    if restorer and todo:
        restored = _restore(options, restorer, todo, features, measured)
        if restored is None:  # the first of several processes goes on alone
            return 0
        outcome = restored
    seconds = time.perf_counter() - start
    if options.reference is not None:
        attempted = {*todo}
        skipped = [job for job in jobs if job.reference and job not in attempted]
        outcome.attempt(skipped, lambda job: outcome.quality.update({job: measured(job)}))
    _print_numbers(options, jobs, outcome)
    if options.report is not None and outcome.quality:
        _write_report(options, restorer, outcome, jobs)
    _write_pictures(options, restorer, outcome, jobs, features)
    for reason in outcome.failures.values():
        print(f"failed: {one_line(reason)}", file=sys.stderr)
    done = sum(job not in outcome.failures for job in todo)
    counts = f"skipped {len(jobs) - len(todo)}, failed {len(outcome.failures)}"
    print(f"restored {done}, {counts} -> {options.output} ({seconds:.1f} s)")
    return 1 if outcome.failures else 0


def _plan(options: argparse.Namespace) -> list[Job]:
    photos = find_photos(
        options.input,
        reference=options.reference,
        mask=options.mask,
        output=options.output,
        noise="" if options.same_noise else None,
    )
    suffix = f".{options.format}" if options.format else None
    return plan_targets(photos, options.output, suffix=suffix)


def _restore(
    options: argparse.Namespace,
    restorer: Restorer,
    jobs: list[Job],
    features: PhotoFeatures,
    measured: Measured,
) -> Outcome | None:
    """Restore photos in this process or in several; None in all but the first of several."""
    work = partial(
        restore_all,
        restorer,
        batch_size=options.batch_size,
        samples=options.samples,
        maps=options.output if options.samples > 1 else None,
        features=features,
        measured=measured,
        log=options.log,
    )
    if _processes(options) == 1:
        return work(jobs)
    from mrdiff.cli.sample.processes import restore_spread  # Lightning: seconds

    devices, nodes = options.devices, options.num_nodes
    return restore_spread(restorer, jobs, work, device=options.device, devices=devices, nodes=nodes)


def _print_numbers(options: argparse.Namespace, jobs: list[Job], outcome: Outcome) -> None:
    """What was missing, which tasks the model saw, and the table."""
    if options.mask is not None and (missing := sum(job.mask is None for job in jobs)):
        print(f"{missing} photos have no mask in {options.mask}")
    if outcome.tasks:
        print("tasks: " + ", ".join(f"{n} {count}" for n, count in outcome.tasks.most_common()))
    if options.reference is not None:
        rows = [outcome.quality[job] for job in jobs if job in outcome.quality]
        if rows:
            print(format_table(rows))
        if missing := sum(job.reference is None for job in jobs if job.target.is_file()):
            print(f"{missing} photos have no reference in {options.reference}")


def _write_report(
    options: argparse.Namespace, restorer: Restorer | None, outcome: Outcome, jobs: list[Job]
) -> None:
    from mrdiff.cli.sample.html import write_report  # matplotlib and jinja2: only if it is wanted

    facts = [f"checkpoint {options.checkpoint.name}"]
    if restorer is not None:
        sampler = f"sampler {options.sampler}" if options.sampler else "the checkpoint's sampler"
        facts += [sampler, f"{restorer.sampler.nfe} calls", f"seed {options.seed}"]
    rows = {job: outcome.quality[job] for job in jobs if job in outcome.quality}
    write_report(options.report, rows, facts=", ".join(facts), protocol=options.protocol)


def _write_pictures(
    options: argparse.Namespace,
    restorer: Restorer | None,
    outcome: Outcome,
    jobs: list[Job],
    features: PhotoFeatures,
) -> None:
    """Comparisons and trajectories of all photos but those that failed."""
    if options.compare:
        paths = comparison_paths(jobs, options.output)
        wanted = [job for job in jobs if not (options.skip_existing and paths[job].is_file())]
        outcome.attempt(wanted, lambda job: write_comparison(job, paths[job]))
    if options.trajectory and restorer is not None:
        from mrdiff.cli.sample.trajectory import follow  # matplotlib: only if it is wanted

        root = options.output / "trajectory"
        folders = {job: root / job.target.relative_to(options.output) for job in jobs}
        done = {job for job in jobs if (folders[job] / "strip.png").is_file()}
        wanted = [job for job in jobs if not (options.skip_existing and job in done)]
        shown = track(wanted, "trajectories", console=Console(stderr=True))
        outcome.attempt(shown, lambda job: follow(restorer, features, job, folders[job]))
