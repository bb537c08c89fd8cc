"""Patches a second of every degradation on one core, against another checkout; and on a device.

    python -m benchmarks.degradations [--other DIR] [--turns 30] [--side 96]
    python -m benchmarks.degradations --device cuda [--batch 192] [--side 112]

First image by image, as a worker degrades: ``--other`` takes the packages of DIR by turns. Then
what is drawn on one core, and what is applied to a batch on a device, for the families of
universal.yaml and for wild.yaml.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection

from benchmarks.turns import answer, by_turns

_PATCHES = 40  # of each family a turn: the first few find cold caches


def families() -> dict[str, Any]:
    """The degradations by name, of whichever checkout is tested."""
    from mrdiff.cli.train.arguments import prepare
    from mrdiff.cli.train.run import build_run

    wild, universal = (
        build_run(prepare(["--config", name])).datamodule.degradation
        for name in ("wild.yaml", "universal.yaml")
    )
    return {**universal.kinds, "wild.yaml": wild}


def patches(side: int) -> list[torch.Tensor]:
    """Pieces of photos, float32 ``[3, side, side]``."""
    from datamodules import DemoPhotos
    from datamodules.degradations import GaussianNoise

    photos = DemoPhotos(GaussianNoise(), size=2 * side)
    clean = [photos[i]["gt"] for i in range(len(photos))]
    return [clean[i % 6][:, i // 6 * 5 :, i // 6 * 7 :][:, :side, :side] for i in range(_PATCHES)]


def work(side: int, turns: int) -> None:
    """A worker: seconds that each family needs for some patches."""
    from mrdiff.system.cores import keep_freed_memory

    keep_freed_memory()  # as every run does
    torch.set_num_threads(1)
    found, images = families(), patches(side)
    for turn in range(turns + 2):  # the first one warms up
        seconds = {}
        for name, degradation in found.items():
            start = time.perf_counter()
            for number, image in enumerate(images):
                generator = torch.Generator().manual_seed(_PATCHES * turn + number)
                degradation.degrade_with_mask(image, generator)
            seconds[name] = time.perf_counter() - start
        if turn:
            answer(seconds)


def compare(side: int, turns: int, other: Path | None) -> None:
    """Print the table of patches a second on one core."""
    arguments = ["--side", str(side), "--turns", str(turns)]
    found = by_turns("benchmarks.degradations", arguments, other, turns)
    names = ("here", "other")[: len(found)]
    ratio = " here / other |" if other else ""
    print(f"| patches of {side} px a second | {' | '.join(names)} |{ratio}")
    print(f"|---|{'---|' * (len(names) + bool(other))}")
    for family in found[0][0]:
        speeds = [_PATCHES / statistics.median(a[family] for a in answers) for answers in found]
        cells = [f"{speed:.0f}" for speed in speeds]
        if other:
            pairs = zip(*([a[family] for a in answers] for answers in found), strict=True)
            cells.append(f"{statistics.median(theirs / ours for ours, theirs in pairs):.2f}")
        print(f"| {family} | {' | '.join(cells)} |")


def _seconds(todo: Any, device: torch.device) -> float:
    """The median time of a call, waited for."""
    times = []
    for _ in range(12):
        start = time.perf_counter()
        todo()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def on_device(side: int, batch: int, device: torch.device) -> None:
    """Print what a core draws, and what the device applies, in patches a second."""
    images = torch.stack([patches(side)[i % _PATCHES] for i in range(batch)])
    print(f"| {batch} patches of {side} px, patches a second | drawn, one core | on {device} |")
    print("|---|---|---|")
    there = images.to(device)
    for name, degradation in families().items():
        generator = torch.Generator().manual_seed(0)

        def drawn(degradation: Any = degradation, generator: Any = generator) -> Any:
            draws = [degradation.draw(generator, (3, side, side)) for _ in range(batch)]
            return degradation.pack(draws)

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        drawing = _seconds(drawn, torch.device("cpu"))
        torch.set_num_threads(threads)
        applied = "needs the CPU"
        if degradation.on_device:
            draws = apply_to_collection(drawn(), torch.Tensor, lambda tensor: tensor.to(device))
            with torch.no_grad():
                spent = _seconds(lambda d=degradation, w=draws: d.apply(there, w), device)
            applied = f"{batch / spent:.0f}"
        print(f"| {name} | {batch / drawing:.0f} | {applied} |", flush=True)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--other", type=Path)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--device", type=torch.device)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.worker:
        work(options.side, options.turns)
    elif options.device:
        on_device(options.side, options.batch, options.device)
    else:
        compare(options.side, options.turns, options.other)
    return 0


if __name__ == "__main__":
    sys.exit(main())
