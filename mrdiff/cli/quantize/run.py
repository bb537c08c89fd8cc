"""``mrdiff quantize``, the heavy half: watch the network, round it, and measure what that loses."""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from rich.console import Console
from rich.progress import track
from torch import Tensor

from mrdiff.acceleration.int8 import Ranges, input_ranges, rounded
from mrdiff.acceleration.ranges import save_ranges
from mrdiff.cli.common.batches import load
from mrdiff.cli.common.contexts import Told, read_told
from mrdiff.cli.common.errors import CommandError, one_line
from mrdiff.cli.common.jobs import Job, plan_jobs, spread
from mrdiff.metrics import psnr
from mrdiff.networks.conditions import takes_mask
from mrdiff.official.daclip import ImageController
from mrdiff.photo import PhotoError, centre_crop, read_rgb, to_rgb
from mrdiff.restoration.restorer import Restorer

__all__ = ["run_quantizing"]


@dataclass(frozen=True)
class _Crop:
    """The middle of a photo ``[1, 3, h, w]``, of its ground truth and of its mask."""

    job: Job
    lq: Tensor
    gt: Tensor | None
    mask: Tensor | None


def _read(job: Job, side: int) -> _Crop:
    """The crop of a photo.

    Raises:
        PhotoError: a file cannot be read, or they differ in size.
    """
    loaded = load(job)
    lq, gt, mask = to_rgb(loaded.photo.image), None, loaded.mask
    if job.reference is not None:
        gt = read_rgb(job.reference)
        if gt.shape != lq.shape:
            raise PhotoError(f"{job.reference}: another size than {job.source}")
    rest = [None if image is None else centre_crop(image, side)[None] for image in (gt, mask)]
    return _Crop(job, centre_crop(lq, side)[None], *rest)


def _crops(jobs: list[Job], side: int) -> list[_Crop]:
    """The middles of the photos; broken ones are named and left out.

    Raises:
        CommandError: none is left.
    """
    crops: list[_Crop] = []
    for job in jobs:
        try:
            crops.append(_read(job, side))
        except PhotoError as error:
            print(f"left out: {one_line(error)}", file=sys.stderr)
    if not crops:
        raise CommandError(f"none of the {len(jobs)} photos can be used")
    return crops


def _restorer(options: argparse.Namespace, told: Told, names: list[str]) -> Restorer:
    try:
        restorer = Restorer.from_checkpoint(
            options.checkpoint,
            device="cpu",
            sampler=options.sampler,
            nfe=options.nfe,
            tile="off",
            task="auto" if options.daclip or options.context else options.task,
            features=ImageController.from_file(options.daclip) if options.daclip else None,
            allow=options.allow_package,
        )
        told.check(restorer, names)
    except ValueError as error:
        raise CommandError(str(error), status=2) from error
    if options.mask is not None and not takes_mask(restorer.denoiser.network):
        raise CommandError("--mask: this model was trained without masks; leave it out", status=2)
    return restorer


def _restore(restorer: Restorer, told: Told, crop: _Crop) -> Tensor:
    known = [told(crop.job.key)]
    return restorer.restore(crop.lq, [crop.job.name], mask=crop.mask, features=known)


def _find_ranges(restorer: Restorer, told: Told, crops: list[_Crop]) -> Ranges:
    console = Console(stderr=True)
    with input_ranges(restorer.denoiser.network) as ranges:
        for crop in track(crops, "watching", console=console):
            _restore(restorer, told, crop)
    if not ranges:
        raise CommandError("this network has no convolutions to round: int8 has nothing to do")
    return ranges


def _judge(restorer: Restorer, told: Told, crops: list[_Crop], ranges: Ranges) -> str:
    """A table: how far the rounded network's restorations are from float32's and the truth."""
    network = restorer.denoiser.network
    shown: list[list[Tensor]] = []
    console = Console(stderr=True)
    for kind, running in {"float32": network, "int8": rounded(network, ranges)}.items():
        restorer.denoiser.network = running
        shown.append([_restore(restorer, told, c) for c in track(crops, kind, console=console)])
    restorer.denoiser.network = network
    rows = {}
    for crop, plain, small in zip(crops, *shown, strict=True):
        error = float((small - plain).double().square().mean())  # not in whole grey levels
        values = [-10 * math.log10(error) if error else math.inf]
        if crop.gt is not None:
            values += [float(psnr(plain, crop.gt)), float(psnr(small, crop.gt))]
        rows[crop.job.key] = values
    return _format(rows)


def _format(rows: Mapping[str, list[float]]) -> str:
    """A line a photo, and the means of the columns over the photos that have them."""
    heads = ["int8 to float32", "float32 to reference", "int8 to reference"]
    columns = [list(column) for column in zip_longest(*rows.values())]
    means = [statistics.mean(v for v in column if v is not None) for column in columns]
    lines = [_line("PSNR in dB", heads[: len(columns)])]
    lines += [_line(name, [f"{value:.2f}" for value in values]) for name, values in rows.items()]
    return "\n".join([*lines, _line("mean", [f"{value:.2f}" for value in means])])


def _line(name: str, cells: list[str]) -> str:
    return "  ".join([f"{name:24}", *(f"{cell:>20}" for cell in cells)])


def run_quantizing(options: argparse.Namespace) -> int:
    """Run the command with the flags of :mod:`mrdiff.cli.quantize.command`.

    Raises:
        CommandError: nothing can be done at all.
        CheckpointError: the ranges cannot be kept.
    """
    nowhere = Path(os.devnull)  # no photo is written
    jobs = plan_jobs(options.input, nowhere, options.reference, options.mask)
    jobs = spread(jobs, options.images)
    told = read_told(options)
    restorer = _restorer(options, told, [job.key for job in jobs])
    crops = _crops(jobs, options.crop)
    # Every fourth is judged on and not watched; a single photo has to be both.
    judged = crops[::4]
    watched = [crop for index, crop in enumerate(crops) if index % 4] or crops
    try:
        ranges = _find_ranges(restorer, told, watched)
        print(_judge(restorer, told, judged, ranges))
    except MemoryError as error:
        raise CommandError(f"out of memory: try a smaller --crop than {options.crop}") from error
    if missing := sum(crop.gt is None for crop in judged) if options.reference else 0:
        print(f"{missing} of {len(judged)} photos have no reference in {options.reference}")
    said = f"{len(ranges)} convolutions, watched on {len(watched)} photos"
    if not options.dry_run:
        save_ranges(options.checkpoint, ranges)
        said += f" -> {options.checkpoint}"
    print(said)
    return 0
