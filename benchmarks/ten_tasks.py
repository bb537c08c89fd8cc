"""Ten recipes, the same few minutes each: what they bring on photos they have never seen.

    python -m benchmarks.ten_tasks [--minutes 6] [--tasks rainy hazy] [--keep FOLDER]
        [--pairs FOLDER]

Each recipe is trained by the real command on dead leaves under its own degradation. Then, at NFE 5:
its ``own`` validation photos, real ones under the same degradation; and ``pairs``, real or of a
benchmark, whose degradation was made by others, if they are there, the middle 512 x 512 pixels of
each: the honest measure. Tasks whose run lies in the folder of --keep are measured again, not
trained again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.evaluation import (
    SHARED,
    TASKS,
    Quality,
    own_photos,
    pairs_of,
    quality,
    train_for,
    trained_before,
)
from mrdiff.checkpoints.reading import load_model
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.metrics import Meter
from mrdiff.photo import write_image

# The recipes' own; beside it, on their own photos, one that draws instead of taking the mean.
SAMPLERS = {"own": ("fidelity", "mr-ode-2"), "pairs": ("fidelity",)}


def measure_task(
    task: str, denoiser: Denoiser, folder: Path, meter: Meter, pictures: Path | None
) -> dict[str, Quality]:
    """Quality by what it is measured on and sampler, and pictures of all that was restored."""
    sets = {"own": own_photos(f"{TASKS[task]}.yaml"), "pairs": pairs_of(folder / task)}
    found = {}
    for name, samples in sets.items():
        for sampler in SAMPLERS[name] if samples else ():

            def keep(image: str, columns: torch.Tensor, name: str = name) -> None:
                if pictures is not None:
                    file = pictures / task / name / f"{image}.png"
                    write_image(file, torch.cat(list(columns), dim=-1))

            found[f"{name} {sampler}"] = quality(
                denoiser,
                samples,
                sampler=sampler,
                meter=meter,
                keep=keep if sampler == SAMPLERS[name][0] else None,
            )
    return found


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--pairs", type=Path, default=SHARED / "data" / "paired")
    parser.add_argument("--keep", type=Path, help="folder for checkpoints and pictures")
    options = parser.parse_args(given)
    meter = Meter(("psnr", "ssim", "lpips"))
    print("| task | measured on | images | sampler | PSNR | gain | SSIM | LPIPS | trained |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for task in options.tasks:
            folder = (options.keep or Path(scratch)) / task
            run = trained_before(folder)
            run = run or train_for(options.minutes, ["--config", f"{TASKS[task]}.yaml"], folder)
            denoiser = load_model(run.checkpoint, "cpu")
            found = measure_task(task, denoiser, options.pairs, meter, options.keep)
            for key, result in found.items():
                where, sampler = key.split()
                print(
                    f"| {task} | {where} | {result.images} | {sampler} | {result.row()} "
                    f"| {run.spent} |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
