"""A folder of small photos: does the network work all the time, and what do two processes bring?

    python -m benchmarks.throughput --checkpoint best.ckpt [--count 200] [--rounds 3]

Restores a folder as ``sample.py`` does. First in one process, with the share of the wall time that
the network was computing: the rest is reading, writing and Python. Then by the command itself, in
one process and in two, each of one thread, interleaved; photos per second come from the difference
between a full folder and a tenth of it, so that imports and the start of processes do not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules import DemoPhotos
from datamodules.degradations import Rain
from mrdiff.checkpoints.places import find_model
from mrdiff.cli.common.jobs import find_photos
from mrdiff.cli.common.targets import plan_targets
from mrdiff.cli.sample.photos import restore_all
from mrdiff.photo import write_image
from mrdiff.restoration.restorer import Restorer

ROOT = Path(__file__).parents[1]


def fill(folder: Path, count: int, side: int) -> None:
    """Write crops of the demonstration photos as PNG and JPEG."""
    photos = DemoPhotos(degradation=Rain(), size=256)
    rng = np.random.default_rng(0)
    for index in range(count):
        image = photos[index % len(photos)]["lq"]
        top, left = rng.integers(0, 256 - side + 1, 2).tolist()
        file = folder / f"{index:04d}.{('png', 'jpg')[index % 2]}"
        write_image(file, image[:, top : top + side, left : left + side])


def network_share(checkpoint: Path, source: Path, output: Path) -> tuple[float, float]:
    """Wall seconds of a folder in this process, and the share that the network took of them."""
    restorer = Restorer.from_checkpoint(checkpoint, device="cpu")
    spent, begun = 0.0, 0.0

    def start(*_: Any) -> None:
        nonlocal begun
        begun = time.perf_counter()

    def stop(*_: Any) -> None:
        nonlocal spent
        spent += time.perf_counter() - begun

    restorer.denoiser.network.register_forward_pre_hook(start)
    restorer.denoiser.network.register_forward_hook(stop)
    begin = time.perf_counter()
    restore_all(restorer, plan_targets(find_photos(source), output), batch_size=1)
    wall = time.perf_counter() - begin
    return wall, spent / wall


def command_seconds(checkpoint: Path, source: Path, processes: int) -> float:
    """Wall seconds of ``sample.py`` from its start to its end, one thread a process."""
    with tempfile.TemporaryDirectory() as output:
        command = [
            *(sys.executable, "sample.py", "--checkpoint", str(checkpoint), "--device", "cpu"),
            *("--input", str(source), "--output", output, "--devices", str(processes)),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        begin = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=environment)
        return time.perf_counter() - begin


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=find_model, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--side", type=int, default=128, help="of the photos in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(given)
    checkpoint = options.checkpoint.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        many, few = Path(scratch) / "many", Path(scratch) / "few"
        fill(many, options.count, options.side)
        fill(few, options.count // 10, options.side)
        wall, share = network_share(checkpoint, many, Path(scratch) / "out")
        print(f"{options.count} photos of {options.side} x {options.side} pixels, one process")
        print(f"wall time {wall:.1f} s, of which the network took {share:.1%}\n")
        speeds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(options.rounds):
            for processes, found in speeds.items():
                longer = command_seconds(checkpoint, many, processes)
                shorter = command_seconds(checkpoint, few, processes)
                found.append((options.count - options.count // 10) / (longer - shorter))
        one = statistics.median(speeds[1])
        print(f"| processes of one thread, {os.cpu_count()} cores | photos/s | ratio |")
        print("|---|---|---|")
        for processes, found in speeds.items():
            middle = statistics.median(found)
            print(f"| {processes} | {middle:.2f} | {middle / one:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
