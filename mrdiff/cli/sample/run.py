"""``mrdiff sample`` with torch: one photo through a pipe, a clip, or all photos of a folder."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Collection
from functools import partial

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from mrdiff.acceleration.backends import OpenVINONetwork, use_inductor
from mrdiff.acceleration.precision import set_precision, trained_in
from mrdiff.acceleration.ranges import read_ranges
from mrdiff.checkpoints.reading import read_checkpoint
from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.features import PhotoFeatures, read_features
from mrdiff.cli.common.jobs import Job, Photo, find_photos
from mrdiff.cli.common.models import check_device, load_restorer
from mrdiff.cli.common.paths import PIPE
from mrdiff.cli.common.targets import plan_beside, plan_targets
from mrdiff.cli.sample.clips.request import clip_target, is_clip
from mrdiff.cli.sample.photos import Measured, Outcome, restore_all
from mrdiff.cli.sample.pipe import restore_pipe
from mrdiff.cli.sample.results import (
    check_outputs,
    print_failures,
    print_numbers,
    report_run,
    write_pictures,
)
from mrdiff.cli.sample.table import measure_job
from mrdiff.metrics import Meter
from mrdiff.networks.local_pooling import localise
from mrdiff.photo import Found, limit_megapixels
from mrdiff.photo.kinds import channels_of
from mrdiff.restoration.ensemble import check_spread
from mrdiff.restoration.restorer import Restorer
from mrdiff.system.devices import pick_device
from mrdiff.system.names import METRICS
from mrdiff.system.text import shown

__all__ = ["run_sampling"]


def run_sampling(options: argparse.Namespace) -> int:
    """Run the command with the flags of :mod:`mrdiff.cli.sample.command`; 1 if any photo failed.

    Raises:
        CommandError: nothing can be done at all.
        ValueError: of our own kinds, for LPIPS weights or a pipe's photo that cannot be used.
    """
    limit_megapixels(options.max_megapixels)
    features = read_features(options.context, task=options.task, daclip=options.daclip)
    if options.output == PIPE:
        return _run_pipe(options, features)
    if is_clip(options):
        return _run_clip(options, features)
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
        check_spread(restorer.sampler, restorer.denoiser.process, options.samples)
        if options.local_pooling:
            localise(network, options.local_pooling)
        if options.backend == "openvino":
            ranges = read_ranges(checkpoint) if options.precision == "int8" else None
            precision = "fp32" if options.precision == "auto" else options.precision
            network = OpenVINONetwork(network, precision=precision, ranges=ranges)
            restorer.denoiser.network = network
        else:  # for the device that it is on, or Lightning will move it to
            device, trained = pick_device(options.device), trained_in(checkpoint)
            set_precision(network, options.precision, trained=trained, device=device)
        if options.compile:
            use_inductor(network, device=pick_device(options.device))
    except ValueError as error:
        raise CommandError(str(error), status=2) from error
    return restorer


def _processes(options: argparse.Namespace) -> int:
    return int(options.devices * options.num_nodes)


def _run_pipe(options: argparse.Namespace, features: PhotoFeatures) -> int:
    (source,) = options.input
    name = "stdin" if source == PIPE else Photo(source, source).name
    restorer = _open_model(options, features, [name])
    suffix = f".{options.format}" if options.format else None
    restore_pipe(restorer, source, name=name, features=features(name), suffix=suffix)
    return 0


def _run_clip(options: argparse.Namespace, features: PhotoFeatures) -> int:
    from mrdiff.cli.sample.clips.restore import restore_clip  # PyAV: not everybody has it

    (source,), target = options.input, clip_target(options)
    if options.skip_existing and target.is_file():
        print(f"restored 0 frames, {target} is there already")
        return 0
    start = time.perf_counter()
    restorer = _open_model(options, features, [source.stem])
    known = [features(source.stem)]
    columns = (TextColumn("restoring"), MofNCompleteColumn(), TextColumn("frames"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def work(frame: np.ndarray) -> np.ndarray:  # the noise of each is that of all
            pixels, as_array = channels_of(frame)
            restored = restorer.restore(pixels[None], [source.stem], features=known)[0]
            bar.advance(task)
            return np.asarray(as_array(restored))

        most = options.max_megapixels * 1_000_000
        try:
            count, notes = restore_clip(source, target, work, max_pixels=most)
        except MemoryError as error:
            raise CommandError(f"{source}: out of memory, try --tile 256") from error
    asked = options.output.suffix.lower() if options.output else ""
    if target.suffix.lower() not in (source.suffix.lower(), asked):
        notes.append(f"written as {target.name}: no {source.suffix} can be written")
    for note in notes:
        print(f"note: {shown(source)}: {shown(note)}", file=sys.stderr)
    print(f"restored {count} frames -> {shown(target)} ({time.perf_counter() - start:.1f} s)")
    return 0


def _run_photos(options: argparse.Namespace, features: PhotoFeatures) -> int:
    jobs, found = _plan(options)
    todo = [job for job in jobs if not (options.skip_existing and os.path.isfile(job.target))]
    check_outputs(options, jobs, todo)
    names = METRICS if options.reference else ()
    meter = Meter(names, protocol=options.protocol, lpips_weights=options.lpips_weights)
    measured = partial(measure_job, meter=meter)
    start, restorer, outcome = time.perf_counter(), None, Outcome()
    if wanted := jobs if options.trajectory else todo:
        restorer = _open_model(options, features, [job.key for job in wanted])
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
    print_numbers(options, restorer, jobs, outcome)
    if options.report is not None and outcome.quality:
        report_run(options, restorer, outcome, jobs)
    write_pictures(options, restorer, outcome, jobs, features)
    failed = print_failures(outcome, found)
    done = sum(job not in outcome.failures for job in todo)
    counts = f"restored {done}, skipped {len(jobs) - len(todo)}, failed {failed}"
    if found.unread:
        counts += f", left out {len(found.unread)}"
    where = "beside them" if options.output is None else shown(options.output)
    print(f"{counts} -> {where} ({seconds:.1f} s)")
    return 1 if failed or outcome.lost else 0


def _plan(options: argparse.Namespace) -> tuple[list[Job], Found]:
    """The photos, and what of the input is none."""
    found: list[Found] = []
    photos = find_photos(
        *options.input,
        reference=options.reference,
        mask=options.mask,
        output=options.output,
        noise="" if options.same_noise else None,
        passed_over=found.append,
    )
    suffix = f".{options.format}" if options.format else None
    if options.output is None:
        jobs = plan_beside(photos, suffix=suffix, again=options.skip_existing)
    else:
        jobs = plan_targets(photos, options.output, suffix=suffix)
    return jobs, found[0]


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
    from mrdiff.cli.common.processes import spread_out  # Lightning: seconds

    model, devices, nodes = restorer.denoiser, options.devices, options.num_nodes
    parts = spread_out(model, jobs, work, device=options.device, devices=devices, nodes=nodes)
    if parts is None:
        return None
    whole = Outcome()
    for part in parts:
        whole.add(part)
    return whole
