"""Training speed on the CPU under thread settings, alone and beside a busy process.

    python -m benchmarks.threads [--rounds 3]

Prints medians of images/s of derain.yaml over interleaved rounds, and ratios to the first row.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[1]
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
SETTINGS: dict[str, tuple[dict[str, str], int]] = {
    "default: passive, spin 1000, 0 workers": ({}, 0),
    "the same, 1 worker": ({}, 1),
    "passive, spin 0": ({**PASSIVE, "GOMP_SPINCOUNT": "0"}, 0),
    "passive, spin 30000": ({**PASSIVE, "GOMP_SPINCOUNT": "30000"}, 0),
    "active": ({"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "INFINITY"}, 0),
    "1 thread": ({"OMP_NUM_THREADS": "1"}, 0),
}


def images_per_second(environment: dict[str, str], workers: int, steps: int) -> float:
    """Of the second half of a short run."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "train.py", "--config", "derain.yaml"),
            *("--trainer.max_steps", str(steps), "--trainer.val_check_interval", "1000000"),
            *("--trainer.logger.init_args.save_dir", folder, "--data.num_workers", str(workers)),
            *("--trainer.logger.init_args.version", "run"),
            *("--trainer.enable_progress_bar", "false"),
        ]
        subprocess.run(
            command,
            cwd=ROOT,
            check=True,
            env={**clean, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        events = EventAccumulator(str(Path(folder) / "derain" / "run"))
        events.Reload()
        values = [event.value for event in events.Scalars("train/images_per_s")]
    return statistics.median(values[len(values) // 2 :])


def burn() -> None:
    while True:
        pass


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args(given)
    for busy in (False, True):
        neighbour = multiprocessing.Process(target=burn, daemon=True)
        if busy:
            neighbour.start()
        speeds: dict[str, list[float]] = {name: [] for name in SETTINGS}
        for _ in range(options.rounds):
            for name, (environment, workers) in SETTINGS.items():
                speeds[name].append(images_per_second(environment, workers, options.steps))
        if busy:
            neighbour.terminate()
        first = statistics.median(next(iter(speeds.values())))
        print(f"\n{'beside one busy process' if busy else 'alone'}, {os.cpu_count()} cores\n")
        print("| setting | images/s | ratio |\n|---|---|---|")
        for name, values in speeds.items():
            middle = statistics.median(values)
            print(f"| {name} | {middle:.0f} | {middle / first:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
