"""Quality and time of every sampler against NFE: one checkpoint, real photos, the same noise.

    python -m benchmarks.derain_nfe --checkpoint runs/derain/version_0/checkpoints/best.ckpt \\
        [--lq FOLDER --gt FOLDER] [--crop 256] [--nfes 1 2 3 5 10 20 50 100]

Without folders the photos are those of scikit-image under this project's rain. Prints a Markdown
table and, with ``--csv FILE``, writes every number.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from datamodules import DemoPhotos, PairedFolder
from datamodules.degradations import Rain
from mrdiff.checkpoints.reading import load_model
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.metrics import LPIPS, measure
from mrdiff.solvers.noise import named_noise
from mrdiff.solvers.presets import make_sampler
from mrdiff.system.names import SAMPLERS

NFES = (1, 2, 3, 5, 10, 20, 50, 100)
METRICS = ("psnr", "ssim", "lpips")


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--lq", type=Path, help="degraded photos")
    parser.add_argument("--gt", type=Path, help="the clean ones, of the same names")
    parser.add_argument("--crop", type=int, default=256, help="side of the centre crop")
    parser.add_argument("--images", type=int, default=100, help="at most so many photos")
    parser.add_argument("--nfes", type=int, nargs="+", default=NFES)
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS, choices=SAMPLERS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--lpips_weights")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(given)
    if (options.lq is None) != (options.gt is None):
        parser.error("give both --lq and --gt, or neither")
    return options


def photos(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Centre crops as samples with batch axis."""
    if options.lq is None:
        dataset = DemoPhotos(Rain(), size=options.crop)
    else:
        dataset = PairedFolder(options.lq, options.gt, crop_size=options.crop)
    dataset.check()
    return [dataset[i] for i in range(min(len(dataset), options.images))]


def restored(
    denoiser: Denoiser, sampler: str, nfe: int, sample: dict[str, Any], seed: int
) -> tuple[Tensor, float]:
    """The restored photo ``[1, 3, H, W]`` on the CPU, and the seconds it took."""
    device = next(denoiser.parameters()).device
    mu = sample["lq"][None].to(device)
    start = time.perf_counter()
    image = make_sampler(sampler, nfe=nfe)(
        denoiser, mu, noise=named_noise(seed, [sample["name"]])
    ).cpu()
    return image, time.perf_counter() - start


def rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a (sampler, NFE), means over the photos; the input is the first."""
    denoiser, samples = load_model(options.checkpoint, options.device), photos(options)
    lpips = LPIPS.find(options.lpips_weights)

    def score(images: list[Tensor]) -> dict[str, float]:
        each = [
            measure(image, sample["gt"][None], names=METRICS, lpips=lpips)
            for image, sample in zip(images, samples, strict=True)
        ]
        return {name: statistics.mean(float(e[name]) for e in each) for name in each[0]}

    table = [
        {"sampler": "input", "nfe": 0, "seconds": 0.0, **score([s["lq"][None] for s in samples])}
    ]
    restored(denoiser, "posterior", 1, samples[0], 0)  # warm up
    suited = [s for s in options.samplers if make_sampler(s).suits(denoiser.process)]
    runs = [(sampler, nfe) for nfe in options.nfes for sampler in suited]
    for sampler, nfe in track(runs, console=Console(stderr=True)):
        results = [restored(denoiser, sampler, nfe, sample, options.seed) for sample in samples]
        seconds = statistics.median(result[1] for result in results)
        quality = score([result[0] for result in results])
        table.append({"sampler": sampler, "nfe": nfe, "seconds": seconds, **quality})
    return table


def markdown(table: list[dict[str, Any]], nfes: Sequence[int]) -> str:
    """PSNR / SSIM / LPIPS / seconds by sampler and NFE."""
    cells = {(row["sampler"], row["nfe"]): row for row in table}
    names = dict.fromkeys(row["sampler"] for row in table[1:])
    lines = []
    for metric, digits in (("psnr", 2), ("ssim", 3), ("lpips", 3), ("seconds", 3)):
        if metric not in table[0]:
            continue
        given = "" if metric == "seconds" else f" (input {table[0][metric]:.{digits}f})"
        lines += ["", f"{metric}{given}", "", "| NFE | " + " | ".join(map(str, nfes)) + " |"]
        lines.append("|---" * (len(nfes) + 1) + "|")
        for name in names:
            values = " | ".join(f"{cells[name, nfe][metric]:.{digits}f}" for nfe in nfes)
            lines.append(f"| {name} | {values} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    table = rows(options)
    print(markdown(table, options.nfes))
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    return 0


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
