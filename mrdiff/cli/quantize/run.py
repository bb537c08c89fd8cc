"""``mrdiff quantize``, with torch: watch the network, round it, and measure what that loses."""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping
from itertools import zip_longest

from rich.console import Console
from rich.progress import track
from torch import Tensor

from mrdiff.acceleration.int8 import Ranges, input_ranges, rounded
from mrdiff.acceleration.ranges import save_ranges
from mrdiff.checkpoints.reading import read_checkpoint
from mrdiff.cli.common.crops import Crop, read_crop, usable
from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.features import PhotoFeatures, read_features
from mrdiff.cli.common.jobs import find_photos, spread
from mrdiff.cli.common.models import load_restorer
from mrdiff.metrics import psnr
from mrdiff.photo import to_rgb
from mrdiff.restoration.restorer import Restorer

__all__ = ["run_quantize"]


def _restorer(options: argparse.Namespace, features: PhotoFeatures, names: list[str]) -> Restorer:
    try:
        checkpoint = read_checkpoint(options.checkpoint)
        return load_restorer(options, checkpoint, features, names, device="cpu", tile="off")
    except ValueError as error:
        raise CommandError(str(error), status=2) from error


def _restore(restorer: Restorer, features: PhotoFeatures, crop: Crop) -> Tensor:
    photo, mask = crop.photo, None if crop.mask is None else crop.mask[None]
    known = [features(photo.key)]
    return restorer.restore(to_rgb(crop.lq)[None], [photo.name], mask=mask, features=known)


def _find_ranges(restorer: Restorer, features: PhotoFeatures, crops: list[Crop]) -> Ranges:
    console = Console(stderr=True)
    with input_ranges(restorer.denoiser.network) as ranges:
        for crop in track(crops, "watching", console=console):
            _restore(restorer, features, crop)
    if not ranges:
        raise CommandError("this network has no convolutions to round: int8 has nothing to do")
    return ranges


def _judge(restorer: Restorer, features: PhotoFeatures, crops: list[Crop], ranges: Ranges) -> str:
    """A table: how far the rounded network's restorations are from float32's and the truth."""
    network = restorer.denoiser.network
    shown: list[list[Tensor]] = []
    console = Console(stderr=True)
    for kind, running in {"float32": network, "int8": rounded(network, ranges)}.items():
        restorer.denoiser.network = running
        shown.append([_restore(restorer, features, c) for c in track(crops, kind, console=console)])
    restorer.denoiser.network = network
    rows = {}
    for crop, plain, small in zip(crops, *shown, strict=True):
        error = float((small - plain).double().square().mean())  # not in whole grey levels
        values = [-10 * math.log10(error) if error else math.inf]
        if crop.gt is not None:
            values += [float(psnr(restored, crop.gt[None])) for restored in (plain, small)]
        rows[crop.photo.key] = values
    return _format(rows)


def _format(rows: Mapping[str, list[float]]) -> str:
    """A line a photo, and the means of the columns over the photos that have them."""
    columns = [list(column) for column in zip_longest(*rows.values())]
    means = [statistics.mean(v for v in column if v is not None) for column in columns]
    heads = ["int8 to float32", "float32 to reference", "int8 to reference"][: len(columns)]
    lines = ["  ".join([f"{'PSNR in dB':24}", *(f"{head:>20}" for head in heads)])]
    for name, values in {**rows, "mean": means}.items():
        lines.append("  ".join([f"{name:24}", *(f"{value:20.2f}" for value in values)]))
    return "\n".join(lines)


def run_quantize(options: argparse.Namespace) -> int:
    """Run the command with the flags of :mod:`mrdiff.cli.quantize.command`."""
    photos = find_photos(*options.input, reference=options.reference, mask=options.mask)
    photos = spread(photos, options.images)
    features = read_features(options.context, task=options.task, daclip=options.daclip)
    restorer = _restorer(options, features, [photo.key for photo in photos])
    crops = usable(photos, lambda photo: read_crop(photo, options.crop))
    # Every fourth is judged on and not watched; a single photo has to be both.
    judged = crops[::4]
    watched = [crop for index, crop in enumerate(crops) if index % 4] or crops
    try:
        ranges = _find_ranges(restorer, features, watched)
        print(_judge(restorer, features, judged, ranges))
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
