"""One recipe under each path from the degraded to the clean image, for equal time.

    python -m benchmarks.paths [--minutes 4] [--config derain.yaml] [--pairs FOLDER]
        [--paths bridge mr flow] [--overlays noise.yaml]

Trains the recipe with the overlay of each path, by the real command, from the same seed with the
same data. The network is the same, and so is the time of a step: a short run says how many steps
the minutes are, and all take as many. Prints PSNR, LPIPS, the sliced Wasserstein distance between
patches (SW, times 100) and seconds a photo at each NFE, of the pairs, or else of the recipe's
validation photos. With ``--keep FOLDER`` the runs are kept there, and those that are there already
are not trained again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.evaluation import (
    Trained,
    own_photos,
    pairs_of,
    restore,
    steps_in,
    train_steps,
    trained_before,
)
from datamodules import Sample
from mrdiff.checkpoints.reading import load_model
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.metrics import Meter, sliced_wasserstein
from mrdiff.solvers.presets import make_sampler
from mrdiff.solvers.run import Sampler

# The overlay of configs/paths that is each path; ``bridge`` is the recipes' own.
PATHS = ("bridge", "mr", "goub", "unidb", "ddbm_ve", "ddbm_vp")
PATHS += ("resshift", "rddm", "diffuir", "flow", "indi", "palette")
NFES = (1, 2, 3, 5, 10, 20)
SAMPLERS = ("fidelity", "mr-ode-2")


def scores(
    denoiser: Denoiser,
    samples: Sequence[Sample],
    sampler: Sampler,
    meter: Meter,
    *,
    task: str | None = None,
) -> list[float]:
    """PSNR, LPIPS or nan, SW and the median of the seconds a photo."""
    images, seconds = [], []
    for sample in samples:
        began = time.perf_counter()
        images.append(restore(denoiser, sample, sampler, task=task))
        seconds.append(time.perf_counter() - began)
    truths = [sample["gt"][None] for sample in samples]
    each = [meter(image, truth) for image, truth in zip(images, truths, strict=True)]
    means = [
        statistics.mean(float(row.get(key, torch.nan)) for row in each) for key in ("psnr", "lpips")
    ]
    distances = [
        100 * sliced_wasserstein(image, truth) for image, truth in zip(images, truths, strict=True)
    ]
    return [*means, statistics.mean(distances), statistics.median(seconds)]


def rows(
    name: str, trained: Trained, samples: Sequence[Sample], nfes: Sequence[int]
) -> Iterator[str]:
    """Cells of PSNR / LPIPS / SW, one a NFE, by sampler."""
    denoiser, meter = load_model(trained.checkpoint, "cpu"), Meter(("psnr", "lpips"))
    restore(denoiser, samples[0], make_sampler(nfe=1))  # warm up
    for sampler in SAMPLERS:
        runs = [make_sampler(sampler, nfe=nfe) for nfe in nfes]
        found = [scores(denoiser, samples, run, meter) for run in runs]
        cells = [f"{psnr:.2f} / {lpips:.3f} / {sw:.2f}" for psnr, lpips, sw, _ in found]
        seconds = " ".join(f"{values[-1]:.3f}" for values in found)
        yield f"| {name} | {sampler} | {' | '.join(cells)} | {seconds} | {trained.spent} |"


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--config", default="derain.yaml")
    parser.add_argument("--overlays", nargs="*", default=[])
    parser.add_argument("--pairs", type=Path, help="a folder with LQ and GT")
    parser.add_argument("--paths", nargs="+", default=PATHS, choices=PATHS)
    parser.add_argument("--nfes", type=int, nargs="+", default=NFES)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args(given)
    samples = pairs_of(options.pairs) if options.pairs else own_photos(options.config)
    common = [flag for name in (options.config, *options.overlays) for flag in ("--config", name)]
    steps = options.steps or steps_in(options.minutes, common)
    print(f"| path | sampler | {' | '.join(map(str, options.nfes))} | seconds | trained |")
    print("|---" * (len(options.nfes) + 4) + "|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.paths:
            folder = (options.keep or Path(scratch)) / name
            overlay = [] if name == "bridge" else ["--config", f"paths/{name}.yaml"]
            trained = trained_before(folder) or train_steps(steps, [*common, *overlay], folder)
            for row in rows(name, trained, samples, options.nfes):
                print(row, flush=True)
    return 0


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
