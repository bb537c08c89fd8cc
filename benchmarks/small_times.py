"""How near to t = 0 sampling should go: a trained model asked up to where sigma is so small.

    python -m benchmarks.small_times --checkpoint best.ckpt [...] [--pairs FOLDER]

PSNR, LPIPS and the sliced Wasserstein distance between patches (SW, times 100) of `mr-ode-2` on the
middle 512 x 512 pixels of the pairs under FOLDER/LQ and FOLDER/GT, for equal steps in log-SNR that
end at each sigma, in image units. The default grid ends at 0.002, half a grey level.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.evaluation import SHARED, pairs_of
from benchmarks.paths import scores
from mrdiff import MRSampler
from mrdiff.checkpoints.reading import load_model
from mrdiff.metrics import LPIPS
from mrdiff.solvers.timegrid import uniform_log_snr

NFES, ENDS = (5, 10, 20, 50), (5e-5, 5e-4, 0.002, 0.005)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", nargs="+", required=True)
    parser.add_argument("--pairs", type=Path, default=SHARED / "data" / "paired" / "rainy")
    parser.add_argument("--task", help="that of the pairs, for a model of several")
    options = parser.parse_args(given)
    samples, lpips = pairs_of(options.pairs), LPIPS.find()
    print(f"| checkpoint | sigma | {' | '.join(map(str, NFES))} |")
    print("|---" * (len(NFES) + 2) + "|")
    for number, checkpoint in enumerate(options.checkpoint, start=1):
        denoiser = load_model(checkpoint, "cpu")
        for end in ENDS:
            grid = partial(uniform_log_snr, sigma_end=end)
            runs = [MRSampler(nfe=nfe, grid=grid) for nfe in NFES]
            found = [scores(denoiser, samples, run, lpips, task=options.task) for run in runs]
            cells = [f"{psnr:.2f} / {lpips:.3f} / {sw:.2f}" for psnr, lpips, sw, _ in found]
            print(f"| {number} | {end:g} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
