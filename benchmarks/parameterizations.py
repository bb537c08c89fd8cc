"""What the network predicts, and how its errors are weighed, at equal time.

    python -m benchmarks.parameterizations [--config derain.yaml] [--steps 3200] [--every 100]
        [--pairs FOLDER] [--names data velocity noise]

Trains the recipe in each way from the same seed with the same data and learning rates. Prints the
first step at which PSNR at NFE 5 on the recipe's validation photos is above the degraded input,
that PSNR at the end, and PSNR / LPIPS of the pairs (else of the validation photos) at several NFEs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.evaluation import own_photos, pairs_of, run_training
from benchmarks.paths import scores
from mrdiff.checkpoints.reading import load_model
from mrdiff.metrics import LPIPS
from mrdiff.solvers.presets import make_sampler

_PRECONDITIONED = ("--model.parameterization", "preconditioned")
_OF_X0 = ("--model.objective", "mrdiff.training.ScaledTarget", "--model.objective.error", "x0")
_UNIFORM = ("--model.time_power", "1")
VARIANTS: dict[str, Sequence[str]] = {
    "data": (),
    "data, times uniform": _UNIFORM,
    "velocity": ("--config", "velocity.yaml"),
    "noise": ("--config", "noise.yaml"),
    "noise, as it is": ("--model.parameterization", "noise"),
    "preconditioned": _PRECONDITIONED,
    "preconditioned, times uniform": (*_PRECONDITIONED, *_UNIFORM),
    "preconditioned, error of x0": (*_PRECONDITIONED, *_OF_X0),
    "preconditioned, error of x0, times uniform": (*_PRECONDITIONED, *_OF_X0, *_UNIFORM),
}
RUNS = [("fidelity", 1), ("fidelity", 2), ("fidelity", 5)]
RUNS += [("mr-ode-2", 2), ("mr-ode-2", 5), ("mr-ode-2", 20), ("mr-ode-2", 50)]


def curve(folder: Path, tag: str) -> dict[int, float]:
    """Step -> value of a logged scalar; steps count from 1."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {event.step + 1: event.value for event in events.Scalars(tag)}


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="derain.yaml")
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--pairs", type=Path, help="a folder with LQ and GT")
    parser.add_argument("--names", nargs="+", default=["data", "velocity", "noise"])
    options = parser.parse_args(given)
    samples = pairs_of(options.pairs) if options.pairs else own_photos(options.config)
    lpips = LPIPS.find()
    columns = " | ".join(f"{sampler}@{nfe}" for sampler, nfe in RUNS)
    print(f"| what is learnt | first step above the input | input | at the end | {columns} |")
    print("|---" * (len(RUNS) + 4) + "|", flush=True)
    for name in options.names:
        with tempfile.TemporaryDirectory() as folder:
            flags = ["--config", options.config, *VARIANTS[name]]
            log = run_training(flags, Path(folder), steps=options.steps, every=options.every)
            quality, degraded = curve(log, "val/psnr@5"), curve(log, "val/psnr@input")
            denoiser = load_model(log / "checkpoints" / "last.ckpt", "cpu")
        passed = [step for step, value in quality.items() if value > degraded[step]]
        first = str(min(passed)) if passed else f"not within {options.steps}"
        end = max(quality)
        runs = (make_sampler(sampler, nfe=nfe) for sampler, nfe in RUNS)
        found = [scores(denoiser, samples, run, lpips) for run in runs]
        cells = " | ".join(f"{psnr:.2f} / {lp:.3f}" for psnr, lp, _, _ in found)
        row = f"| {name} | {first} | {degraded[end]:.2f} | {quality[end]:.2f} | {cells} |"
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
