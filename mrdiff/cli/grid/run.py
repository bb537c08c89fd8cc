"""``mrdiff grid``, with torch: read crops, search, write the file and print the table."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch import Tensor

from mrdiff.checkpoints.reading import Checkpoint
from mrdiff.cli.common.crops import Crop, read_crop, usable
from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.jobs import Photo, find_photos, spread
from mrdiff.cli.common.measuring import find_meter
from mrdiff.cli.common.models import load_denoiser
from mrdiff.cli.common.paths import writing
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.metrics import Meter
from mrdiff.networks.conditions import pick_features
from mrdiff.photo import PhotoError, centre_crop, composite
from mrdiff.solvers.gridfile import write_grid
from mrdiff.solvers.noise import named_noise
from mrdiff.solvers.presets import DEFAULT_NAME, make_sampler
from mrdiff.solvers.run import begin
from mrdiff.solvers.sampler import MRSampler
from mrdiff.system.names import METRICS
from mrdiff.tuning.calibration import Calibration
from mrdiff.tuning.checkpoint_sampler import read_sampler
from mrdiff.tuning.search import MAXIMISED, NAMED_GRIDS, FoundGrid
from mrdiff.tuning.spectrum import Spectrum, residual_spectrum, search_spectrum

__all__ = ["run_grid"]

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
Found = Mapping[int, FoundGrid]
Progressed = Callable[[str, int, int], None]  # label, done, in all


class _Crops(NamedTuple):
    """Crops of one size with their names: degraded and clean ``[B, 3, S, S]``."""

    names: list[str]
    lq: Tensor
    gt: Tensor | None


def _read(photo: Photo, side: int, *, paired: bool) -> Crop:
    """A crop for the search, or PhotoError."""
    crop = read_crop(photo, side)
    if min(crop.lq.shape[-2:]) < _SMALLEST:
        raise PhotoError(f"{photo.source}: smaller than {_SMALLEST} pixels")
    if paired and crop.gt is None:
        raise PhotoError(f"{photo.source}: it has no reference")
    return crop


def _read_crops(options: argparse.Namespace, photos: list[Photo], *, paired: bool) -> _Crops:
    """The crops of every usable photo, of the side asked for or the smallest photo's."""
    read = usable(photos, partial(_read, side=options.crop, paired=paired))
    side = min(length for crop in read for length in crop.lq.shape[-2:])
    lq = torch.stack([centre_crop(composite(crop.lq), side) for crop in read])
    clean = [centre_crop(crop.gt, side) for crop in read if crop.gt is not None]
    return _Crops([crop.photo.name for crop in read], lq, torch.stack(clean) if paired else None)


def _solver(options: argparse.Namespace, checkpoint: Checkpoint, route: str) -> dict[str, Any]:
    """What the sampler is beside its NFE and its times; flags come before its own.

    Raises:
        CommandError: it has no times to choose, or the route cannot judge it.
    """
    whose = f"--sampler {options.sampler}" if options.sampler else "the checkpoint's sampler"
    flags = {"order": options.order, "prediction": options.prediction}
    flags |= {"temperature": options.temperature, "corrector": options.corrector or None}
    changes = {key: value for key, value in flags.items() if value is not None}
    try:
        sampler = make_sampler(options.sampler or read_sampler(checkpoint) or DEFAULT_NAME)
        if not isinstance(sampler, MRSampler):
            fixed = f"{whose}: the times of a baseline are fixed"
            raise CommandError(f"{fixed}: give --sampler mr-ode-2 or the like", status=2)
        sampler = MRSampler(**{**sampler.options(), **changes})
    except ValueError as error:
        raise CommandError(str(error), status=2) from error
    # The mean of 100 predictions depends on where they lie; a Gaussian's is mu, whatever the times.
    averages = sampler.average and route in ("distance", "spectrum")
    if averages or (sampler.eta > 0 and route == "distance"):
        why = "averages its predictions" if averages else "draws noise at every step"
        cure = "give --metric psnr and --reference, or --sampler mr-ode-2"
        what = f"{whose} {why}, it has no solution to come close to"
        raise CommandError(f"{what}: {cure}", status=2)
    return {key: value for key, value in sampler.options().items() if key not in ("nfe", "grid")}


@contextlib.contextmanager
def _bars() -> Iterator[Progressed]:
    """A progress bar for each label that reports."""
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = progress.add_task(label, total=total)
            progress.update(tasks[label], completed=done)

        yield report


@torch.no_grad()
def _spectrum(options: argparse.Namespace, denoiser: Denoiser, crops: _Crops) -> Spectrum:
    assert crops.gt is not None
    try:
        window = min(_WINDOW, crops.lq.shape[-1])
        return residual_spectrum(list(crops.gt - begin(denoiser, crops.lq)), window=window)
    except ValueError as error:
        raise CommandError(f"--reference {options.reference}: {error}") from error


def _calibration(
    options: argparse.Namespace,
    denoiser: Denoiser,
    crops: _Crops,
    meter: Meter | None,
    *,
    solver: dict[str, Any],
    bars: Progressed,
) -> Calibration:
    device = next(denoiser.parameters()).device
    pick_features(denoiser.network, {})  # says that it cannot do without, if so
    return Calibration(
        denoiser,
        crops.lq.to(device),
        noise=named_noise(options.seed, crops.names),
        metric=options.metric or "distance",
        truth=None if crops.gt is None else crops.gt.to(device),
        meter=meter,
        chunk=max(1, _PIXELS_AT_ONCE // crops.lq.shape[-1] ** 2),
        options=solver,
        progress=bars,
    )


def _change(found: FoundGrid, route: str) -> str:
    best = (max if route in MAXIMISED else min)(found.before.values())
    return f"{100 * (found.after / best - 1):+.1f} %" if best else ""


def format_table(found: Found, route: str) -> str:
    """A line an NFE: the named grids, the optimised times, and the change from the best named."""
    digits = {"psnr": 2, "ssim": 4, "lpips": 4}.get(route, 3)
    rows = [["nfe", *NAMED_GRIDS, "optimised", "change"]]
    for nfe, result in found.items():
        values = [*(result.before[name] for name in NAMED_GRIDS), result.after]
        rows.append([str(nfe), *(f"{v:.{digits}f}" for v in values), _change(result, route)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join([_VALUES[route], "", *("  ".join(map(str.rjust, r, widths)) for r in rows)])


def _made(seed: int, crops: _Crops, route: str, solver: dict[str, Any], found: Found) -> Any:
    """How the times were found, in plain values."""
    results = {
        nfe: {
            "before": {name: round(value, 6) for name, value in result.before.items()},
            "after": round(result.after, 6),
            "evaluations": result.evaluations,
        }
        for nfe, result in found.items()
    }
    made = {"route": route, "value": _VALUES[route], "solver": solver}
    images = {"images": len(crops.names), "crop": crops.lq.shape[-1], "seed": seed}
    return {**made, **images, "results": results}


def run_grid(options: argparse.Namespace) -> int:
    """Run the command with the flags of :mod:`mrdiff.cli.grid.command`."""
    route = "spectrum" if options.spectrum else options.metric or "distance"
    paired = route != "distance"
    photos = find_photos(
        *options.input, reference=options.reference if paired else None, output=options.output
    )
    meter = find_meter(options, [route]) if route in METRICS else None
    device = "cpu" if options.spectrum else options.device
    checkpoint, denoiser = load_denoiser(options, device=device)
    solver = _solver(options, checkpoint, route)
    crops = _read_crops(options, spread(photos, options.images), paired=paired)
    with _bars() as bars:
        if options.spectrum:
            spectrum, process = _spectrum(options, denoiser, crops), denoiser.process
            found = search_spectrum(process, spectrum, options.nfe, options=solver, progress=bars)
        else:
            calibration = _calibration(options, denoiser, crops, meter, solver=solver, bars=bars)
            found = calibration.search(options.nfe, progress=bars)
    made = _made(options.seed, crops, route, solver, found)
    with writing(options.output):
        times = {nfe: list(result.times) for nfe, result in found.items()}
        write_grid(options.output, times, denoiser.process, made=made)
    print(format_table(found, route))
    side, count = crops.lq.shape[-1], len(crops.names)
    print(f"\n{count} photos, crops of {side} x {side} -> {options.output}")
    return 0
