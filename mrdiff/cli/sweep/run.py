"""``mrdiff sweep``, the heavy half: run every candidate on every pair, write what came out."""

from __future__ import annotations

import argparse
import contextlib
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from mrdiff.checkpoints.reading import load_model
from mrdiff.cli.common.devices import check_device
from mrdiff.cli.common.errors import CommandError, one_line
from mrdiff.cli.sweep.candidates import Candidate
from mrdiff.cli.sweep.pairs import Measure, Pair, load_pairs
from mrdiff.cli.sweep.plot import draw
from mrdiff.cli.sweep.report import Recommendation, format_table, recommend, words
from mrdiff.cli.sweep.rows import SETTINGS, Row, write_csv
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.process import MRProcess
from mrdiff.metrics import LPIPS, find_lpips_weights, measure
from mrdiff.photo import composite, to_uint8
from mrdiff.restoration.restorer import Restorer
from mrdiff.solvers.baselines import BaselineSampler
from mrdiff.solvers.gridfile import is_grid_file, read_grid
from mrdiff.solvers.sampler import MRSampler
from mrdiff.solvers.timegrid import Grid
from mrdiff.system.files import replacing, write_text
from mrdiff.tuning.kept_sampler import (
    DEFAULT_NAME,
    DEFAULT_NFE,
    describe_sampler,
    resolve_sampler,
    save_sampler,
)

__all__ = ["run_sweep"]

Step = Callable[[], None]
Restored = tuple[Tensor, float]


@dataclass(frozen=True)
class Run:
    """One candidate at one NFE."""

    candidate: Candidate
    sampler: MRSampler | BaselineSampler

    def options(self) -> dict[str, Any]:
        """Plain options for a checkpoint; they hold the times of a grid file, not its path."""
        if self.candidate.grid is not None and isinstance(self.sampler, MRSampler):
            return describe_sampler(self.sampler)
        own = {"name": self.candidate.sampler, "nfe": self.sampler.nfe}
        temperature = self.candidate.temperature
        return own if temperature is None else {**own, "temperature": temperature}


def _measure(options: argparse.Namespace) -> Measure:
    path = find_lpips_weights(options.lpips_weights)
    if path is None and options.metric == "lpips":
        message = "--metric lpips needs AlexNet's features: give --lpips_weights FILE"
        raise CommandError(message, status=2)
    lpips = LPIPS.from_file(path) if path else None

    def each(image: Tensor, target: Tensor) -> dict[str, float]:
        # Rounded here, so that what is computed from the rows equals what the CSV says.
        values = measure(image[None], target[None], lpips=lpips)
        return {name: round(float(value[0]), 6) for name, value in values.items()}

    return each


def _load_model(options: argparse.Namespace) -> Denoiser:
    check_device(options.device)
    return load_model(options.checkpoint, device=options.device, allow=options.allow_package)


def _runs(
    candidate: Candidate, nfes: Sequence[int], process: MRProcess, left_out: dict[str, None]
) -> Iterator[Run]:
    """The candidate at each NFE, checked; what its grid file has no times for is ``left_out``."""
    grid: Grid | None = candidate.grid
    if candidate.grid is not None and is_grid_file(candidate.grid):
        grid = read_grid(candidate.grid).for_process(process)
    for nfe in nfes:
        if isinstance(grid, Mapping) and nfe not in grid:
            left_out[f"{candidate.grid} has no times for NFE {nfe}"] = None
            continue
        name, temperature = candidate.sampler, candidate.temperature
        sampler = resolve_sampler(None, name=name, nfe=nfe, grid=grid, temperature=temperature)
        if isinstance(sampler, MRSampler):
            sampler.times(process)
        yield Run(candidate, sampler)


def _plan(options: argparse.Namespace, tried: Sequence[Candidate], process: MRProcess) -> list[Run]:
    """Every candidate at every NFE, few calls first; the default is always among them.

    Raises:
        CommandError: a grid that cannot be, or nothing that could be recommended.
    """
    nfes, left_out = sorted(set(options.nfe)), dict[str, None]()  # each reason once
    try:
        runs = [run for one in tried for run in _runs(one, nfes, process, left_out)]
    except ValueError as error:
        raise CommandError(one_line(error), status=2) from error
    most = math.inf if options.budget is None else options.budget
    if not any(run.sampler.nfe <= most for run in runs):
        limit = "" if options.budget is None else f" within --budget {options.budget}"
        raise CommandError(f"there is no run{limit}: {'; '.join(left_out)}", status=2)
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    default = Candidate(DEFAULT_NAME)
    if (default, DEFAULT_NFE) not in [(run.candidate, run.sampler.nfe) for run in runs]:
        runs += _runs(default, [DEFAULT_NFE], process, left_out)
    return sorted(runs, key=lambda run: run.sampler.nfe)


def _restore(run: Run, denoiser: Denoiser, pair: Pair, seed: int, step: Step) -> Restored:
    """What ``sample.py`` would write as PNG, RGB in [0, 1] on the CPU, and the seconds it took."""
    start = time.perf_counter()
    restorer = Restorer(denoiser, sampler=run.sampler, seed=seed)
    restored = restorer.channels(pair.lq, name=pair.name, callback=lambda *_: step())
    seconds = time.perf_counter() - start
    return composite(to_uint8(restored).float() / 255), seconds


def _row(run: Run, seconds: Sequence[float], scores: Sequence[Mapping[str, float]]) -> Row:
    values = {name: getattr(run.sampler, name, "") for name in SETTINGS}
    if isinstance(run.sampler, MRSampler):
        given = run.candidate.grid or run.sampler.grid
        values["grid"] = given if isinstance(given, str) else "own"
    settings = {name: str(value).removesuffix(".0") for name, value in values.items()}
    candidate, median = run.candidate, round(statistics.median(seconds), 6)
    each = _each(scores)
    return Row(candidate.label, run.sampler.nfe, candidate.sampler, settings, median, each)


def _each(scores: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(score[name] for score in scores) for name in scores[0]}


@contextlib.contextmanager
def _progress(calls: int) -> Iterator[Step]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("sweeping", total=calls)
        yield lambda: progress.advance(task)


def _sweep(
    runs: Sequence[Run], pairs: Sequence[Pair], denoiser: Denoiser, *, seed: int, score: Measure
) -> Iterator[Row]:
    """The row of each run, as soon as it is complete; ends early on Ctrl+C."""
    with _progress(len(pairs) * sum(run.sampler.nfe for run in runs)) as step:
        try:
            for pair in pairs:  # the first call at each size is slow
                _restore(runs[0], denoiser, pair, seed, lambda: None)
            for run in runs:
                done = [_restore(run, denoiser, pair, seed, step) for pair in pairs]
                scores = [score(d[0], pair.gt) for d, pair in zip(done, pairs, strict=True)]
                yield _row(run, [d[1] for d in done], scores)
        except torch.OutOfMemoryError as error:
            raise CommandError("out of GPU memory: try a smaller --crop") from error
        except KeyboardInterrupt:
            return


def _report(
    options: argparse.Namespace, rows: list[Row], title: str, mark: str = ""
) -> Recommendation:
    """Write the three files, print the table and the recommendation.

    Args:
        options: of the command.
        rows: what was measured, the degraded input first.
        title: of the plot and the recommendation.
        mark: stands before the suffixes of the files' names.
    """
    write_csv(options.output / f"sweep{mark}.csv", rows)
    try:
        found = recommend(rows, options.metric, budget=options.budget)
    except ValueError as error:
        raise CommandError(str(error)) from error
    text = words(found, checkpoint=str(options.checkpoint))
    write_text(options.output / f"recommendation{mark}.txt", f"{title}.\n\n{text}\n")
    with replacing(options.output / f"sweep{mark}.png") as temporary:
        draw(rows, found, title=title).savefig(temporary, format="png")
    print(f"{format_table(rows, options.metric)}\n\n{text}")
    return found


def run_sweep(options: argparse.Namespace, tried: Sequence[Candidate]) -> int:
    """Run the command with the flags of :mod:`mrdiff.cli.sweep.command`; 130 if it was interrupted.

    Raises:
        CommandError: nothing can be done at all.
        ValueError: of our own kinds, for a checkpoint or LPIPS weights that cannot be used.
    """
    score = _measure(options)
    pairs = load_pairs(options, score)
    denoiser = _load_model(options)
    runs = _plan(options, tried, denoiser.process)
    scores = _each([pair.before for pair in pairs])
    before = Row("input", 0, "", dict.fromkeys(SETTINGS, ""), 0.0, scores)
    start = time.perf_counter()
    rows = list(_sweep(runs, pairs, denoiser, seed=options.seed, score=score))
    if not rows:
        raise KeyboardInterrupt
    complete = len(rows) == len(runs)
    part = "" if complete else f", interrupted after {len(rows)} of {len(runs)} runs"
    title = f"{len(pairs)} images of at most {options.crop} px a side, seed {options.seed}{part}"
    # A part must not take the place of an earlier sweep that is whole.
    mark = "" if complete else ".partial"
    found = _report(options, [before, *rows], title, mark)
    files = "" if complete else "/*.partial.*"
    print(f"\n{len(rows)} runs in {time.perf_counter() - start:.0f} s -> {options.output}{files}")
    if not complete:
        return 130
    chosen = next(run for run, row in zip(runs, rows, strict=True) if row is found.choice)
    _save(options, found, chosen)
    return 0


def _save(options: argparse.Namespace, found: Recommendation, run: Run) -> None:
    """Keep the recommended run in the checkpoint, if that was asked for.

    Raises:
        CommandError: it is not better than the degraded input.
    """
    if options.save and not found.improves:
        message = f"not saved in {options.checkpoint}: {found.choice} does not improve the input"
        raise CommandError(message)
    if options.save:
        save_sampler(options.checkpoint, run.options())
        print(f"saved in {options.checkpoint}: sample.py uses {found.choice} by default")
    elif found.improves:
        print(f"To make {found.choice} this checkpoint's default for sample.py, add --save.")
