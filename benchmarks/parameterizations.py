"""How many steps each parameterization needs until PSNR at NFE 5 passes the degraded input.

    python -m benchmarks.parameterizations [--steps 3200] [--every 100]

Trains derain.yaml, and derain.yaml with the overlays, from the same seed with the same data and
learning rates; validates on the real photos that ship with scikit-image.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[1]


def train(name: str, steps: int, every: int, folder: Path) -> None:
    overlay = [] if name == "data" else ["--config", f"{name}.yaml"]
    command = [
        *(sys.executable, "train.py", "--config", "derain.yaml", *overlay),
        *("--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(every)),
        *("--trainer.logger.init_args.save_dir", str(folder)),
        *("--trainer.logger.init_args.version", name),
        *("--trainer.enable_progress_bar", "false"),
    ]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def curve(folder: Path, tag: str) -> dict[int, float]:
    """Step -> value of a logged scalar; steps count from 1."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {event.step + 1: event.value for event in events.Scalars(tag)}


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--names", nargs="+", default=["data", "velocity", "noise"])
    options = parser.parse_args(given)
    print("| parameterization | first step above the input | PSNR@5 of the input | at the end |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names:
            train(name, options.steps, options.every, Path(folder))
            log = Path(folder) / "derain" / name
            quality, degraded = curve(log, "val/psnr@5"), curve(log, "val/psnr@input")
            passed = [step for step, value in quality.items() if value > degraded[step]]
            first = str(min(passed)) if passed else f"not within {options.steps}"
            end = max(quality)
            print(f"| {name} | {first} | {degraded[end]:.2f} | {quality[end]:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
