"""The temperature dial: what it does where the answer is known, and with a network on real pairs.

    python -m benchmarks.temperature [--checkpoint best.ckpt --lq rainy/LQ --gt rainy/GT]

On the oracles each pixel's clean residual is a draw from a known distribution of which the degraded
image says nothing more, so a restoration can only be another draw from it (temperature 1) or a
compromise between all draws (temperature 0). ``rmse`` is to an independent draw, the truth, and
``gain`` the same in dB of PSNR against temperature 1; ``W2`` is the distance between the
distributions. All three are in grey levels but for the dB. With a checkpoint: PSNR, LPIPS and the
sliced Wasserstein distance between patches (SW, times 100) on the pairs.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.oracle_nfe import MIXTURES
from benchmarks.presets import pairs
from mrdiff import MRProcess, MRSampler, make_sampler
from mrdiff.checkpoints.reading import load_model
from mrdiff.metrics import Meter, sliced_wasserstein
from mrdiff.solvers.noise import named_noise
from mrdiff.solvers.oracle import (
    GaussianOracle,
    MixtureOracle,
    midpoints,
    stratified_prior,
    wasserstein2,
)

TAUS = (0.0, 0.25, 0.5, 0.75, 1.0)
COUNT = 4096


def ends(oracle: GaussianOracle | MixtureOracle, tau: float) -> Tensor:
    """Restored residuals ``[COUNT]``; 50 calls, so that only the temperature matters."""
    sampler = MRSampler(nfe=50, order=3, temperature=tau)
    mu = torch.zeros(1, 1, 1, COUNT, dtype=torch.float64)
    return sampler(oracle, mu, noise=stratified_prior(COUNT)).flatten()


def oracle_rows() -> Iterator[str]:
    process = MRProcess()
    oracles: dict[str, GaussianOracle | MixtureOracle] = {
        "Gaussian, mean 0, std 20": GaussianOracle(process, mean=0.0, std=20 / 255),
        "three modes": MixtureOracle(process, *MIXTURES["three"]),
    }
    yield "| residuals | tau | spread | rmse | gain | W2 |\n|---|---|---|---|---|---|"
    for name, oracle in oracles.items():
        truth = oracle.quantile(midpoints(COUNT))

        def rmse(tau: float, oracle=oracle, truth=truth) -> float:
            found = ends(oracle, tau)
            # E (a - b)² of independent a and b
            return math.sqrt(float((found.mean() - truth.mean()) ** 2 + found.var() + truth.var()))

        whole = rmse(1.0)
        for tau in TAUS:
            found, error = ends(oracle, tau), rmse(tau)
            numbers = (255 * float(found.std()), 255 * error)
            distance = 255 * wasserstein2(found, oracle)
            yield (
                f"| {name} | {tau:g} | {numbers[0]:.2f} | {numbers[1]:.2f} "
                f"| {20 * math.log10(whole / error):+.2f} dB | {distance:.2f} |"
            )


def network_rows(options: argparse.Namespace) -> Iterator[str]:
    denoiser = load_model(options.checkpoint, options.device)
    device = next(denoiser.parameters()).device
    lq, gt, names = pairs(options)
    meter = Meter(("psnr", "lpips"), lpips_weights=options.lpips_weights)
    yield "\n| sampler | NFE | tau | PSNR | LPIPS | SW |\n|---|---|---|---|---|---|"
    for preset in ("mr-ode-2", "perceptual", "mr-sde-1"):
        for nfe in options.nfes:
            for tau in TAUS:
                sampler = make_sampler(preset, nfe=nfe, temperature=tau)
                restored = torch.cat(
                    [
                        sampler(denoiser, image[None].to(device), named_noise(0, [name])).cpu()
                        for image, name in zip(lq, names, strict=True)
                    ]
                )
                scores = meter(restored, gt)
                mean = {key: float(value.mean()) for key, value in scores.items()}
                patches = 100 * sliced_wasserstein(restored.clamp(0, 1), gt)
                yield (
                    f"| {preset} | {nfe} | {tau:g} | {mean['psnr']:.2f} "
                    f"| {mean.get('lpips', math.nan):.3f} | {patches:.2f} |"
                )


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint")
    parser.add_argument("--lq", type=Path, help="degraded photos")
    parser.add_argument("--gt", type=Path, help="the clean ones, of the same names")
    parser.add_argument("--crop", type=int, default=256, help="side of the centre crop")
    parser.add_argument("--nfes", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--lpips_weights")
    options = parser.parse_args(given)
    with torch.inference_mode():
        for row in oracle_rows():
            print(row)
        if options.checkpoint:
            for row in network_rows(options):
                print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
