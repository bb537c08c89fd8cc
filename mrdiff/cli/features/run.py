"""The work of ``mrdiff features``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.jobs import find_photos
from mrdiff.cli.common.models import check_device
from mrdiff.official.daclip import DACLIPError, ImageController, encode_texts
from mrdiff.photo import PhotoError, read_photo, to_rgb
from mrdiff.restoration.features import StoredFeatures
from mrdiff.system.devices import pick_device
from mrdiff.system.text import shown

__all__ = ["run_featuring"]


def _photos(source: Path) -> dict[str, Path]:
    """The photos of a file or folder by the names under which sample.py finds their features."""
    found: dict[str, Path] = {}
    for photo in find_photos(source):
        if (other := found.setdefault(photo.key, photo.source)) != photo.source:
            both = f"{other} and {photo.source} are both {photo.key}"
            raise CommandError(f"features are stored by name, but {both}: rename one", status=2)
    return found


def _of_photos(
    photos: dict[str, Path], controller: ImageController, device: torch.device
) -> tuple[dict[str, Tensor], list[str]]:
    """Features by key, and why other photos have none."""
    tensors: dict[str, Tensor] = {}
    failures: list[str] = []
    for name, path in track(photos.items(), "photos", console=Console(stderr=True)):
        try:
            image = to_rgb(read_photo(path).image)
        except PhotoError as error:
            failures.append(str(error))
            continue
        seen = controller(image[None].to(device))
        tensors |= {f"{name}/{kind}": value for kind, value in seen.items()}
    return tensors, failures


def run_featuring(options: argparse.Namespace) -> int:
    """Run the command and return 1 if any photo failed; CommandError if nothing can be done."""
    check_device(options.device)
    start = time.perf_counter()
    tensors: dict[str, Tensor] = {}
    failures: list[str] = []
    photos = {} if options.input is None else _photos(options.input)
    try:
        if options.tasks:  # first: a package may be missing
            texts = encode_texts(options.daclip, options.tasks)
            tensors |= {f"task/{t}": text for t, text in zip(options.tasks, texts, strict=True)}
        if photos:
            controller = ImageController.from_file(options.daclip)
            seen, failures = _of_photos(photos, controller, pick_device(options.device))
            tensors |= seen
    except DACLIPError as error:
        raise CommandError(str(error), status=2) from error
    for reason in failures:
        print(f"failed: {shown(reason)}", file=sys.stderr)
    if not tensors:
        raise CommandError("no photo could be read: nothing is written")
    StoredFeatures(options.output, tensors).write()
    done, seconds = len(photos) - len(failures), time.perf_counter() - start
    counts = f"{done} photos, {len(options.tasks)} tasks, failed {len(failures)}"
    print(f"features of {counts} -> {options.output} ({seconds:.1f} s)")
    return 1 if failures else 0
