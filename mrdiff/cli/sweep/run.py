"""``mrdiff sweep``, with torch: run every candidate on every pair, write what came out."""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from mrdiff.checkpoints.places import name_of_model, why_fixed
from mrdiff.cli.common.crops import read_crop, usable
from mrdiff.cli.common.errors import CommandError, one_line
from mrdiff.cli.common.jobs import Photo, find_photos, spread
from mrdiff.cli.common.measuring import find_meter, measure
from mrdiff.cli.common.models import load_denoiser
from mrdiff.cli.common.progress import counting_calls
from mrdiff.cli.common.trials import restore_one, samplers_at
from mrdiff.cli.sweep.candidates import Candidate
from mrdiff.cli.sweep.plot import draw
from mrdiff.cli.sweep.report import Recommendation, format_table, recommend, words
from mrdiff.cli.sweep.rows import SETTINGS, Row, write_csv
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.path import GaussianPath
from mrdiff.metrics import Meter
from mrdiff.photo import PhotoError, composite
from mrdiff.restoration.restorer import Restorer
from mrdiff.solvers.gridfile import is_grid_file, read_grid
from mrdiff.solvers.presets import DEFAULT_NAME, DEFAULT_NFE
from mrdiff.solvers.run import Sampler
from mrdiff.solvers.sampler import MRSampler
from mrdiff.solvers.timegrid import Grid
from mrdiff.system.files import replacing, write_text
from mrdiff.tuning.checkpoint_sampler import describe_sampler, save_sampler

__all__ = ["run_sweep"]

Scores = Mapping[str, float]
Score = Callable[[Tensor, Tensor, str], Scores]  # of an image, its reference and its name


class Pair(NamedTuple):
    """A crop of a photo as it is ``[C, H, W]``, of the clean one ``[3, H, W]``, and its scores."""

    name: str
    lq: Tensor
    gt: Tensor
    before: Scores


class Trial(NamedTuple):
    """One candidate at one NFE."""

    candidate: Candidate
    sampler: Sampler


def _score(meter: Meter, image: Tensor, target: Tensor, name: str) -> Scores:
    # Rounded here, so that what is computed from the rows equals what the CSV says.
    values = measure(meter, image, target, name)
    return {metric: round(value, 6) for metric, value in values.items()}


def _read_pair(photo: Photo, *, side: int, score: Score) -> Pair:
    crop = read_crop(photo, side)
    assert crop.gt is not None
    shown = composite(crop.lq)
    if torch.equal(shown, crop.gt):
        files = f"{photo.source}: equal to {photo.reference}"
        raise PhotoError(f"{files}, there is nothing to restore")
    return Pair(photo.name, crop.lq, crop.gt, score(shown, crop.gt, str(photo.source)))


def _trials(
    candidate: Candidate, nfes: Sequence[int], process: GaussianPath, left_out: dict[str, None]
) -> Iterator[Trial]:
    """The candidate at each NFE, checked; what its grid file has no times for is ``left_out``."""
    grid: Grid | None = candidate.grid
    if candidate.grid is not None and is_grid_file(candidate.grid):
        grid = read_grid(candidate.grid).for_process(process)
    timeless = [nfe for nfe in nfes if isinstance(grid, Mapping) and nfe not in grid]
    left_out |= {f"{candidate.grid} has no times for NFE {nfe}": None for nfe in timeless}
    for sampler in samplers_at(
        [nfe for nfe in nfes if nfe not in timeless],
        process,
        candidate.sampler,
        grid=grid,
        temperature=candidate.temperature,
        left_out=left_out,
    ):
        yield Trial(candidate, sampler)


def _plan(
    options: argparse.Namespace, tried: Sequence[Candidate], process: GaussianPath
) -> list[Trial]:
    """Every candidate at every NFE, few calls first; the default is always among them.

    Raises:
        CommandError: a grid that cannot be, or nothing that could be recommended.
    """
    nfes, left_out = sorted(set(options.nfe)), dict[str, None]()  # each reason once
    try:
        trials = [trial for one in tried for trial in _trials(one, nfes, process, left_out)]
    except ValueError as error:
        raise CommandError(one_line(error), status=2) from error
    if not any(trial.sampler.nfe <= (options.budget or math.inf) for trial in trials):
        limit = "" if options.budget is None else f" within --budget {options.budget}"
        raise CommandError(f"there is no run{limit}: {'; '.join(left_out)}", status=2)
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    default = Candidate(DEFAULT_NAME)
    if (default, DEFAULT_NFE) not in [(trial.candidate, trial.sampler.nfe) for trial in trials]:
        trials += _trials(default, [DEFAULT_NFE], process, left_out)
    return sorted(trials, key=lambda trial: trial.sampler.nfe)


def _restore(
    trial: Trial, denoiser: Denoiser, pair: Pair, seed: int, step: Callable[[], None]
) -> tuple[Tensor, float]:
    """What ``sample.py`` would write as PNG, RGB in [0, 1] on the CPU, and the seconds it took."""
    restorer = Restorer(denoiser, sampler=trial.sampler, seed=seed)
    restored = restore_one(restorer, pair.lq, pair.name, on_call=step)
    return restored.image, restored.seconds


def _row(trial: Trial, seconds: Sequence[float], scores: Sequence[Scores]) -> Row:
    candidate, sampler = trial
    values = {name: getattr(sampler, name, "") for name in SETTINGS}
    if isinstance(sampler, MRSampler):
        given = candidate.grid or sampler.grid
        values["grid"] = given if isinstance(given, str) else "own"
    settings = {name: str(value).removesuffix(".0") for name, value in values.items()}
    median = round(statistics.median(seconds), 6)
    label, name = candidate.label, candidate.sampler
    return Row(label, sampler.nfe, name, settings, median, _by_metric(scores))


def _by_metric(scores: Sequence[Scores]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(score[name] for score in scores) for name in scores[0]}


def _sweep(
    trials: Sequence[Trial],
    pairs: Sequence[Pair],
    denoiser: Denoiser,
    *,
    seed: int,
    score: Score,
) -> Iterator[Row]:
    """The row of each trial, as soon as it is complete; ends early on Ctrl+C."""
    calls = len(pairs) * sum(trial.sampler.nfe for trial in trials)
    with counting_calls("sweeping", calls) as step:
        try:
            for pair in pairs:  # the first call at each size is slow
                _restore(trials[0], denoiser, pair, seed, lambda: None)
            for trial in trials:
                done = [_restore(trial, denoiser, pair, seed, step) for pair in pairs]
                scores = [
                    score(d[0], pair.gt, pair.name) for d, pair in zip(done, pairs, strict=True)
                ]
                yield _row(trial, [d[1] for d in done], scores)
        except torch.OutOfMemoryError as error:
            raise CommandError("out of GPU memory: try a smaller --crop") from error
        except KeyboardInterrupt:
            return


def _report(options: argparse.Namespace, rows: list[Row], title: str, mark: str) -> Recommendation:
    """Write the three files, ``mark`` before their suffixes, and print the table and the words."""
    write_csv(options.output / f"sweep{mark}.csv", rows)
    try:
        found = recommend(rows, options.metric, budget=options.budget)
    except ValueError as error:
        raise CommandError(str(error)) from error
    text = words(found, checkpoint=name_of_model(options.checkpoint))
    write_text(options.output / f"recommendation{mark}.txt", f"{title}.\n\n{text}\n")
    with replacing(options.output / f"sweep{mark}.png") as temporary:
        draw(rows, found, title=title).savefig(temporary, format="png")
    print(f"{format_table(rows, options.metric)}\n\n{text}")
    return found


def run_sweep(options: argparse.Namespace, tried: Sequence[Candidate]) -> int:
    """Run the command with the flags of :mod:`mrdiff.cli.sweep.command`; 130 if interrupted."""
    score = partial(_score, find_meter(options))
    photos = find_photos(*options.input, reference=options.reference, output=options.output)
    paired = spread([photo for photo in photos if photo.reference], options.images)
    pairs = usable(paired, partial(_read_pair, side=options.crop, score=score))
    _, denoiser = load_denoiser(options, device=options.device)
    trials = _plan(options, tried, denoiser.process)
    scores = _by_metric([pair.before for pair in pairs])
    before = Row("input", 0, "", dict.fromkeys(SETTINGS, ""), 0.0, scores)
    start = time.perf_counter()
    rows = list(_sweep(trials, pairs, denoiser, seed=options.seed, score=score))
    if not rows:
        raise KeyboardInterrupt
    seconds, complete = time.perf_counter() - start, len(rows) == len(trials)
    part = "" if complete else f", interrupted after {len(rows)} of {len(trials)} runs"
    title = f"{len(pairs)} images of at most {options.crop} px a side, seed {options.seed}{part}"
    # A part must not take the place of an earlier sweep that is whole.
    found = _report(options, [before, *rows], title, "" if complete else ".partial")
    files = "" if complete else "/*.partial.*"
    print(f"\n{len(rows)} runs in {seconds:.0f} s -> {options.output}{files}")
    if not complete:
        return 130
    chosen = next(t for t, row in zip(trials, rows, strict=True) if row is found.choice)
    _save(options, found, chosen.sampler)
    return 0


def _save(options: argparse.Namespace, found: Recommendation, sampler: Sampler) -> None:
    """Put the recommended sampler into the checkpoint, if that was asked for and it is any good."""
    if options.save and not found.improves:
        message = f"not saved in {options.checkpoint}: {found.choice} does not improve the input"
        raise CommandError(message)
    if options.save:
        save_sampler(options.checkpoint, describe_sampler(sampler))
        print(f"saved in {options.checkpoint}: sample.py uses {found.choice} by default")
    elif found.improves and why_fixed(options.checkpoint) is None:
        print(f"To make {found.choice} this checkpoint's default for sample.py, add --save.")
