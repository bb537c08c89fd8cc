"""What a run writes and says beside the restored photos, checked before and done after them."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from mrdiff.checkpoints.places import name_of_model
from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.facts import told
from mrdiff.cli.common.features import PhotoFeatures
from mrdiff.cli.common.jobs import Job, describe_unread
from mrdiff.cli.common.paths import check_targets
from mrdiff.cli.common.targets import place_of
from mrdiff.cli.sample.photos import Outcome
from mrdiff.cli.sample.pictures import (
    comparison_paths,
    trajectory_folder,
    uncertainty_paths,
    write_comparison,
)
from mrdiff.cli.sample.table import format_table
from mrdiff.metrics import LPIPS
from mrdiff.networks.protocol import known_tasks
from mrdiff.photo import Found, PhotoError
from mrdiff.restoration.restorer import Restorer
from mrdiff.system.names import METRIC_TITLES
from mrdiff.system.text import shown

__all__ = ["check_outputs", "print_failures", "print_numbers", "report_run", "write_pictures"]


def check_outputs(options: argparse.Namespace, jobs: Sequence[Job], todo: Sequence[Job]) -> None:
    """Find out before anything is computed what cannot be written, or would overwrite something.

    Raises:
        CommandError: there is such a thing.
    """
    output, sources = options.output, {place_of(job.source.parent) for job in jobs}
    for job in todo:
        if os.path.exists(job.target) and place_of(job.target.parent) in sources:
            raise CommandError(f"--output would overwrite {job.target}: choose another", status=2)
    pictures: dict[str, list[Path]] = {}
    if options.compare:
        pictures["compare"] = [*comparison_paths(jobs, output).values()]
    if options.trajectory:
        pictures["trajectory"] = [trajectory_folder(job, output) / "strip.png" for job in jobs]
    if options.samples > 1:
        maps = [path for job in todo for path in uncertainty_paths(job.target, output)]
        pictures["uncertainty"] = maps
    for name in pictures:
        if any(job.relative.parts[0].casefold() == name for job in jobs):
            message = f"{output / name} would hold restored photos and what a flag writes there"
            raise CommandError(f"{message}: rename {name} in the input", status=2)
    files = [job.target for job in todo] + [path for paths in pictures.values() for path in paths]
    taken = [options.checkpoint, *files, *{path.parent for path in files}]
    taken += [] if output is None else [output]
    taken += [path for job in jobs for path in job.originals]
    places = {place_of(path) for path in taken}
    for flag in ("log", "report"):
        if (file := getattr(options, flag)) is not None:
            if place_of(file) in places:
                raise CommandError(f"--{flag} would overwrite {file}: choose another", status=2)
            places.add(place_of(file))
    check_targets(files, output)


def print_numbers(
    options: argparse.Namespace,
    restorer: Restorer | None,
    jobs: Sequence[Job],
    outcome: Outcome,
) -> None:
    """What was missing, which tasks the model saw, and the table."""
    if options.mask is not None and (missing := sum(job.mask is None for job in jobs)):
        print(f"{missing} photos have no mask in {shown(options.mask)}")
    if restorer is not None:
        _print_done(options, known_tasks(restorer.denoiser.network), jobs, outcome.done)
    if options.reference is not None:
        rows = [outcome.quality[job] for job in jobs if job in outcome.quality]
        if rows:
            print(format_table(rows))
            if "lpips" not in rows[0].before:
                print(f"{METRIC_TITLES['lpips']} is not measured: {LPIPS.weights.absent}")
        if missing := sum(job.reference is None for job in jobs if job.target.is_file()):
            print(f"{missing} photos have no reference in {shown(options.reference)}")


def _print_done(
    options: argparse.Namespace,
    tasks: Sequence[str],
    jobs: Sequence[Job],
    done: Mapping[Job, Mapping[str, Any]],
) -> None:
    """A line for each photo whose result lies beside it; of others how many had which task."""
    if options.output is not None:
        counts = Counter(facts["task"] for facts in done.values() if "task" in facts)
        if counts:
            print("tasks: " + ", ".join(f"{n} {count}" for n, count in counts.most_common()))
        return
    for job in jobs:
        if job in done:
            words = ", ".join(told(done[job], sure=options.task == "auto"))
            print(f"{shown(job.source)} -> {shown(job.target)}: {words}")
    if done and tasks and options.task == "auto":
        print(f"if that is not what ails a photo, name it: --task {', '.join(tasks)}")


def report_run(
    options: argparse.Namespace,
    restorer: Restorer | None,
    outcome: Outcome,
    jobs: Sequence[Job],
) -> None:
    """Write the page of ``--report``; if that fails, the outcome says so."""
    from mrdiff.cli.sample.html import write_report  # matplotlib and jinja2: only if it is wanted

    facts = [f"checkpoint {Path(name_of_model(options.checkpoint)).name}"]
    if restorer is not None:
        sampler = f"sampler {options.sampler}" if options.sampler else "the checkpoint's sampler"
        facts += [sampler, f"{restorer.sampler.nfe} calls", f"seed {options.seed}"]
    rows = {job: outcome.quality[job] for job in jobs if job in outcome.quality}
    try:
        write_report(options.report, rows, facts=", ".join(facts), protocol=options.protocol)
    except (OSError, PhotoError) as error:
        reason = getattr(error, "strerror", None) or error
        outcome.lost.append(f"--report {options.report}: {reason}")


def write_pictures(
    options: argparse.Namespace,
    restorer: Restorer | None,
    outcome: Outcome,
    jobs: Sequence[Job],
    features: PhotoFeatures,
) -> None:
    """Comparisons and trajectories of all photos but those that failed."""
    if options.compare:
        paths = comparison_paths(jobs, options.output)
        wanted = [job for job in jobs if not (options.skip_existing and paths[job].is_file())]
        outcome.attempt(wanted, lambda job: write_comparison(job, paths[job]))
    if options.trajectory and restorer is not None:
        from mrdiff.cli.sample.trajectory import follow  # matplotlib: only if it is wanted

        folders = {job: trajectory_folder(job, options.output) for job in jobs}
        done = {job for job in jobs if (folders[job] / "strip.png").is_file()}
        wanted = [job for job in jobs if not (options.skip_existing and job in done)]
        followed = track(wanted, "trajectories", console=Console(stderr=True))
        outcome.attempt(followed, lambda job: follow(restorer, features, job, folders[job]))


def print_failures(outcome: Outcome, found: Found) -> int:
    """Name what failed, and what of the input is no photo that is read; how many photos failed."""
    for line in describe_unread(found.unread):
        print(f"left out: {shown(line)}", file=sys.stderr)
    unreachable = [f"{path}: {reason}" for path, reason in found.failed.items()]
    for reason in (*outcome.failures.values(), *unreachable, *dict.fromkeys(outcome.lost)):
        print(f"failed: {shown(reason)}", file=sys.stderr)
    return len(outcome.failures) + len(unreachable)
