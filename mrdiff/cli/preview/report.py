"""What ``mrdiff preview`` prints of samples: sizes, ranges, PSNR, time, and what looks wrong."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mrdiff.metrics import psnr

__all__ = ["Drawn", "input_psnr", "oddities", "report"]

_IMAGES = ("lq", "gt", "mask")
_NAMED = 3  # names or shapes that are listed before the others are only counted


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Samples of one set, as the dataset gives them, at least one."""

    role: str  # train or val
    length: int  # samples that it has in all
    tasks: tuple[str, ...]  # that ``degradation`` numbers in the samples
    samples: Sequence[dict[str, Any]]
    seconds: Sequence[float]  # that each took

    def images(self, key: str) -> list[Tensor]:
        """The tensors under ``key`` of the samples that have it."""
        return [sample[key] for sample in self.samples if key in sample]


def _listed(items: Sequence[str]) -> str:
    """Some of the items, and how many more there are."""
    more = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return ", ".join(items[:_NAMED]) + more


def input_psnr(sample: dict[str, Any]) -> float:
    """PSNR in dB of the degraded image as in validation."""
    return float(psnr(sample["lq"][None], sample["gt"][None]))


def _values(images: Sequence[Tensor]) -> str:
    """Types, shapes and the range of images."""
    kinds = dict.fromkeys(str(image.dtype).removeprefix("torch.") for image in images)
    shapes = dict.fromkeys(" x ".join(map(str, image.shape)) for image in images)
    flat = torch.cat([image.double().flatten() for image in images])
    ranges = f"min {flat.min():.3f}  mean {flat.mean():.3f}  max {flat.max():.3f}"
    return f"{_listed([*kinds])}  {_listed([*shapes])}  {ranges}"


def report(drawn: Drawn) -> list[str]:
    """Lines that describe the samples of a set."""
    lines = [f"{drawn.role}: {drawn.length} samples, the first {len(drawn.samples)} drawn"]
    lines += [f"  {k:5} {_values(drawn.images(k))}" for k in _IMAGES if drawn.images(k)]
    quality = sorted(input_psnr(sample) for sample in drawn.samples)
    middle = f"min {quality[0]:.2f}  median {statistics.median(quality):.2f}"
    lines.append(f"  psnr  of lq: {middle}  max {quality[-1]:.2f} dB")
    if drawn.tasks:
        seen = [drawn.tasks[s["degradation"]] for s in drawn.samples if "degradation" in s]
        counts = [f"{seen.count(task)} {task}" for task in drawn.tasks]
        lines.append(f"  tasks {', '.join(counts)}")
    seconds = statistics.median(drawn.seconds)
    speed = 1 / max(seconds, 1e-9)
    lines.append(f"  time  {1000 * seconds:.2f} ms a sample, {speed:.0f} samples/s on one core")
    return lines


_ODD: dict[str, Callable[[Tensor], Any]] = {
    "leaves [0, 1]": lambda image: image.min() < 0 or image.max() > 1,
    "is all black": lambda image: (image == 0).all(),
    "has one value everywhere": lambda image: image.min() == image.max() != 0,
}


def _odd_images(drawn: Drawn) -> list[str]:
    found = []
    for key in ("lq", "gt"):
        for what, is_odd in _ODD.items():
            names = [str(s["name"]) for s in drawn.samples if key in s and is_odd(s[key])]
            if names:
                found.append(f"{key} {what} in {len(names)} of the samples: {_listed(names)}")
    return found


def _odd_masks(masks: Sequence[Tensor], *, several: bool) -> list[str]:
    """What is odd about the masks; of several tasks, most need none."""
    found = []
    if any(((mask != 0) & (mask != 1)).any() for mask in masks):
        found.append("mask has values other than 0 and 1")
    if masks and not several and all((mask == 1).all() for mask in masks):
        found.append("mask has no hole in any sample")
    if masks and all((mask == 0).all() for mask in masks):
        found.append("mask is all hole in every sample")
    return found


def oddities(drawn: Drawn) -> list[str]:
    """Whatever is suspicious about samples that training would take, a line each."""
    several = any("degradation" in sample for sample in drawn.samples)
    odd_masks = _odd_masks(drawn.images("mask"), several=several)
    found = [*_odd_images(drawn), *odd_masks]
    if all(input_psnr(sample) == math.inf for sample in drawn.samples):
        found.append("lq is identical to gt in every sample: nothing is degraded")
    first, *others = drawn.images("lq")
    if others and all(torch.equal(first, other) for other in others):
        found.append("lq is the same picture in every sample")
    return found
