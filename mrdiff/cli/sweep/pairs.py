"""The pairs that a sweep runs on: centre crops of photos and of their references."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mrdiff.cli.common.errors import CommandError, one_line
from mrdiff.cli.common.jobs import plan_jobs
from mrdiff.photo import PhotoError, centre_crop, composite, read_image, read_rgb

__all__ = ["Measure", "Pair", "load_pairs"]

Measure = Callable[[Tensor, Tensor], dict[str, float]]


@dataclass(frozen=True)
class Pair:
    """A crop of a photo as it is (``[C, H, W]``), of the clean one (RGB), and its scores."""

    name: str
    lq: Tensor
    gt: Tensor
    before: Mapping[str, float]


def _load_pair(source: Path, reference: Path, side: int, score: Measure) -> Pair:
    lq, gt = read_image(source), read_rgb(reference)
    if lq.shape[-2:] != gt.shape[-2:]:
        sizes = [f"{image.shape[-1]} x {image.shape[-2]}" for image in (gt, lq)]
        raise PhotoError(f"{reference}: size {sizes[0]}, but {source} has {sizes[1]}")
    lq, gt = centre_crop(lq, side), centre_crop(gt, side)
    if torch.equal(composite(lq), gt):
        raise PhotoError(f"{source}: equal to {reference}, there is nothing to restore")
    try:
        return Pair(source.stem, lq, gt, score(composite(lq), gt))
    except ValueError as error:  # too small a photo for SSIM's window or for LPIPS
        raise PhotoError(f"{source}: {error}") from error


def load_pairs(options: argparse.Namespace, score: Measure) -> list[Pair]:
    """At most ``--images`` pairs spread evenly over the folder; broken ones are named.

    Raises:
        CommandError: none is left.
    """
    planned = plan_jobs(options.input, options.output, options.reference)
    jobs = [(job.source, job.reference) for job in planned if job.reference]
    count = min(len(jobs), options.images)
    pairs: list[Pair] = []
    for source, reference in (jobs[(2 * i + 1) * len(jobs) // (2 * count)] for i in range(count)):
        try:
            pairs.append(_load_pair(source, reference, options.crop, score))
        except PhotoError as error:
            print(f"left out: {one_line(error)}", file=sys.stderr)
    if not pairs:
        raise CommandError(f"none of the {count} pairs can be used")
    return pairs
