"""``mrdiff grid``, the heavy half: read crops, search, write the file and print the table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch import Tensor

from mrdiff.checkpoints.reading import load_model
from mrdiff.cli.common.devices import check_device
from mrdiff.cli.common.errors import CommandError, one_line
from mrdiff.cli.common.jobs import Job, plan_jobs, spread
from mrdiff.cli.common.outputs import writing
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.metrics import LPIPS, find_lpips_weights
from mrdiff.networks.conditions import pick_features
from mrdiff.photo import PhotoError, centre_crop, read_rgb
from mrdiff.solvers.gridfile import write_grid
from mrdiff.solvers.noise import named_noise
from mrdiff.tuning.calibration import Calibration
from mrdiff.tuning.search import MAXIMISED, NAMED_GRIDS, FoundGrid
from mrdiff.tuning.spectrum import residual_spectrum, search_spectrum

__all__ = ["run_gridding"]

_SMALLEST = 32  # pixels a side
_WINDOW = 64  # of the spectrum
_PIXELS_AT_ONCE = 4 * 128 * 128
_VALUES = {
    "distance": "difference to 100 calls from the same noise, root mean square in grey levels",
    "spectrum": "error of the Gaussian model, root mean square in grey levels",
    "psnr": "PSNR against the reference, dB, more is better",
    "ssim": "SSIM against the reference, more is better",
    "lpips": "LPIPS against the reference, less is better",
}


@dataclass(frozen=True)
class _Crops:
    """Central crops of equal size: names, degraded and clean ``[B, 3, S, S]``, what was skipped."""

    names: list[str]
    lq: Tensor
    gt: Tensor | None
    skipped: list[str]


def _read_pair(job: Job, paired: bool) -> list[Tensor]:
    """The degraded photo and, if ``paired``, the clean one, ``[3, H, W]``.

    Raises:
        PhotoError: one cannot be read, is missing, too small or of another size.
    """
    images = [read_rgb(job.source)]
    if min(images[0].shape[-2:]) < _SMALLEST:
        raise PhotoError(f"{job.source}: smaller than {_SMALLEST} pixels")
    if paired:
        if job.reference is None:
            raise PhotoError(f"{job.source}: it has no reference")
        images.append(read_rgb(job.reference))
        if images[0].shape != images[1].shape:
            raise PhotoError(f"{job.reference}: another size than {job.source}")
    return images


def _read_crops(options: argparse.Namespace, jobs: list[Job], paired: bool) -> _Crops:
    """The crops of every usable photo, of the side asked for or the smallest photo's."""
    read: list[list[Tensor]] = []
    names: list[str] = []
    skipped: list[str] = []
    side = options.crop
    for job in spread(jobs, options.images):
        try:
            images = _read_pair(job, paired)
        except PhotoError as error:
            skipped.append(one_line(error))
            continue
        side = min(side, *images[0].shape[-2:])
        # No more is kept of a large photo than is ever needed of it.
        read.append([centre_crop(i, min(options.crop, *i.shape[-2:])) for i in images])
        names.append(job.name)
    if not read:
        raise CommandError(f"--input {options.input}: no usable photo: {skipped[0]}")
    stacks = [torch.stack([centre_crop(i, side) for i in kind]) for kind in zip(*read, strict=True)]
    return _Crops(names, stacks[0], stacks[1] if paired else None, skipped)


def _load(options: argparse.Namespace) -> Denoiser:
    device = "cpu" if options.spectrum else options.device
    check_device(device)
    try:
        return load_model(options.checkpoint, device=device, allow=options.allow_package)
    except ValueError as error:
        raise CommandError(str(error), status=2) from error


def _lpips(options: argparse.Namespace) -> LPIPS | None:
    if options.metric != "lpips":
        return None
    path = find_lpips_weights(options.lpips_weights)
    if path is None:
        message = "--metric lpips needs AlexNet's features: name them by --lpips_weights FILE"
        raise CommandError(message, status=2)
    return LPIPS.from_file(path)


class _Bars:
    """A progress bar for each label that reports."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, label: str, done: int, total: int) -> None:
        if label not in self._tasks:
            self._tasks[label] = self._progress.add_task(label, total=total)
        self._progress.update(self._tasks[label], completed=done)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


def _solver(options: argparse.Namespace) -> dict[str, Any]:
    names = ("order", "prediction", "corrector", "temperature")
    return {"eta": 0.0, **{name: getattr(options, name) for name in names}}


def _search_network(
    options: argparse.Namespace, denoiser: Denoiser, crops: _Crops, lpips: LPIPS | None
) -> dict[int, FoundGrid]:
    device = next(denoiser.parameters()).device
    pick_features(denoiser.network, {})  # says that it cannot do without, if so
    with _progress() as progress:
        bars = _Bars(progress)
        calibration = Calibration(
            denoiser,
            crops.lq.to(device),
            noise=named_noise(options.seed, crops.names),
            metric=options.metric or "distance",
            truth=None if crops.gt is None else crops.gt.to(device),
            lpips=None if lpips is None else lpips.to(device),
            chunk=max(1, _PIXELS_AT_ONCE // crops.lq.shape[-1] ** 2),
            options=_solver(options),
            progress=bars,
        )
        return calibration.search(options.nfe, progress=bars)


def _search_spectrum(
    options: argparse.Namespace, denoiser: Denoiser, crops: _Crops
) -> dict[int, FoundGrid]:
    assert crops.gt is not None
    residuals = list(crops.gt - crops.lq)
    try:
        spectrum = residual_spectrum(residuals, window=min(_WINDOW, crops.lq.shape[-1]))
    except ValueError as error:
        raise CommandError(f"--reference {options.reference}: {error}") from error
    with _progress() as progress:
        more: dict[str, Any] = {"options": _solver(options), "progress": _Bars(progress)}
        return search_spectrum(denoiser.process, spectrum, options.nfe, **more)


def _change(found: FoundGrid, route: str) -> str:
    best = (max if route in MAXIMISED else min)(found.before.values())
    return f"{100 * (found.after / best - 1):+.1f} %" if best else ""


def format_table(found: Mapping[int, FoundGrid], route: str) -> str:
    """A line an NFE: the named grids, the optimised times, and the change from the best named."""
    digits = {"psnr": 2, "ssim": 4, "lpips": 4}.get(route, 3)
    header = ["nfe", *NAMED_GRIDS, "optimised", "change"]
    body = [
        [
            str(nfe),
            *(f"{result.before[name]:.{digits}f}" for name in NAMED_GRIDS),
            f"{result.after:.{digits}f}",
            _change(result, route),
        ]
        for nfe, result in found.items()
    ]
    return "\n".join([_VALUES[route], "", *_aligned([header, *body])])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(map(str.rjust, row, widths)) for row in rows]


def _made(
    options: argparse.Namespace, crops: _Crops, route: str, found: Mapping[int, FoundGrid]
) -> dict[str, Any]:
    """How the times were found, in plain values."""
    results = {
        nfe: {
            "before": {name: round(value, 6) for name, value in result.before.items()},
            "after": round(result.after, 6),
            "evaluations": result.evaluations,
        }
        for nfe, result in found.items()
    }
    made = {"route": route, "value": _VALUES[route], "solver": _solver(options)}
    images = {"images": len(crops.names), "crop": crops.lq.shape[-1], "seed": options.seed}
    return {**made, **images, "results": results}


def run_gridding(options: argparse.Namespace) -> int:
    """Run the command with the flags of :mod:`mrdiff.cli.grid.command`.

    Raises:
        CommandError: nothing can be done at all.
    """
    route = "spectrum" if options.spectrum else options.metric or "distance"
    jobs = plan_jobs(options.input, options.output, options.reference)
    lpips = _lpips(options)
    denoiser = _load(options)
    crops = _read_crops(options, jobs, paired=route != "distance")
    if options.spectrum:
        found = _search_spectrum(options, denoiser, crops)
    else:
        found = _search_network(options, denoiser, crops, lpips)
    times = {nfe: list(result.times) for nfe, result in found.items()}
    made = _made(options, crops, route, found)
    with writing(options.output):
        write_grid(options.output, times, denoiser.process, made=made)
    print(format_table(found, route))
    for reason in crops.skipped:
        print(f"skipped: {reason}", file=sys.stderr)
    side, count = crops.lq.shape[-1], len(crops.names)
    print(f"\n{count} photos, crops of {side} x {side} -> {options.output}")
    return 0
