"""Does the mean of a run's predictions help, and where should its calls lie? Ten models.

    python -m benchmarks.fidelity_grids --keep FOLDER [--tasks rainy hazy] [--nfe 5] [--crop 256]

FOLDER is one that `python -m benchmarks.ten_tasks --keep FOLDER` has filled. Each cell is the mean
gain of PSNR in dB over the input, of order 1 without noise (temperature 0), `last prediction /
mean of all`: (i) on the recipe's own validation photos, (ii) on the middle of real or benchmark
pairs, if they are there.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.evaluation import SHARED, TASKS, own_photos, pairs_of, restore, trained_before
from datamodules import Sample
from mrdiff import MRSampler
from mrdiff.checkpoints.reading import load_model
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.metrics import psnr
from mrdiff.photo import centre_crop

GRIDS = ("uniform_log_snr", "uniform_angle", "uniform_t", "power(2)", "power(0.25)")


def gain(denoiser: Denoiser, samples: Sequence[Sample], sampler: MRSampler) -> float:
    """The mean gain in dB."""
    gains = []
    for sample in samples:
        lq, gt = sample["lq"][None], sample["gt"][None]
        gains.append(float(psnr(restore(denoiser, sample, sampler), gt) - psnr(lq, gt)))
    return statistics.mean(gains)


def _middle(sample: Sample, side: int) -> Sample:
    cut = {key: centre_crop(sample[key], side) for key in ("lq", "gt", "mask") if key in sample}
    return Sample(**{**sample, **cut})


def _cells(denoiser: Denoiser, samples: Sequence[Sample], nfe: int) -> Iterator[str]:
    def of(nfe: int, grid: str, *, average: bool) -> str:
        sampler = MRSampler(nfe=nfe, order=1, grid=grid, temperature=0.0, average=average)
        return f"{gain(denoiser, samples, sampler):+.2f}"

    yield of(1, "uniform_t", average=False)
    for grid in GRIDS:
        yield f"{of(nfe, grid, average=False)} / {of(nfe, grid, average=True)}"


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, required=True, help="of benchmarks.ten_tasks")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--nfe", type=int, default=5)
    parser.add_argument("--crop", type=int, default=256, help="side of the pairs in pixels")
    parser.add_argument("--pairs", type=Path, default=SHARED / "data" / "paired")
    options = parser.parse_args(given)
    print(f"| task | on | 1 call | {' | '.join(f'{options.nfe}, {grid}' for grid in GRIDS)} |")
    print("|---|---|---" + "|---" * len(GRIDS) + "|")
    for task in options.tasks:
        run = trained_before(options.keep / task)
        if run is None:
            raise SystemExit(f"{options.keep / task} holds no run: benchmarks.ten_tasks makes them")
        denoiser = load_model(run.checkpoint, "cpu")
        pairs = [_middle(sample, options.crop) for sample in pairs_of(options.pairs / task)]
        for where, samples in (("(i)", own_photos(f"{TASKS[task]}.yaml")), ("(ii)", pairs)):
            if samples:
                print(
                    f"| {task} | {where} | {' | '.join(_cells(denoiser, samples, options.nfe))} |"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
