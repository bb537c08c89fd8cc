"""Which sampler is best at which NFE: the search behind the presets.

    python -m benchmarks.preset_search --checkpoint best.ckpt --photos clean/val [--nfes 3 5 10]

Clean photos under this project's synthetic rain, so that real pairs stay unseen: every combination
below, the same noise for all; PSNR, LPIPS and the sliced Wasserstein distance between patches (SW,
times 100). Prints the best of each metric and, with ``--csv FILE``, writes all.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from datamodules import CleanFolder
from datamodules.degradations import Rain
from mrdiff.checkpoints.reading import load_model
from mrdiff.metrics import LPIPS, measure, sliced_wasserstein
from mrdiff.solvers.noise import named_noise
from mrdiff.solvers.sampler import MRSampler

METRICS = {"psnr": (-1, 2), "lpips": (1, 4), "sw": (1, 2)}  # sign of better, digits


def candidates() -> Iterator[dict[str, Any]]:
    """Options of :class:`mrdiff.MRSampler` but for the NFE."""
    grids = ("uniform_log_snr", "uniform_t", "power(2)", "karras(3)", "uniform_angle")
    for order, corrector, grid, tau in product((1, 2), (False, True), grids, (1.0, 0.0)):
        yield {"order": order, "corrector": corrector, "grid": grid, "temperature": tau}
    for clock, order, grid in product(("noise", "velocity"), (1, 2), (*grids[:2], grids[4])):
        yield {"prediction": clock, "order": order, "grid": grid}
    for eta, order, grid, tau in product((0.5, 1.0), (1, 2), grids[:3], (1.0, 0.0)):
        yield {"eta": eta, "order": order, "grid": grid, "temperature": tau}
    curved = ("uniform_t", "power(1.5)", "power(2)")
    for order, corrector, grid in product((2, 3), (False, True), curved):
        yield {"prediction": "velocity", "order": order, "corrector": corrector, "grid": grid}
    for grid, tau in product(("karras(2)", "karras(5)"), (1.0, 0.5)):
        yield {"order": 1, "grid": grid, "temperature": tau}


def label(options: dict[str, Any]) -> str:
    """The options in a few words."""
    corrector = " + corrector" if options.get("corrector") else ""
    return (
        f"{options.get('prediction', 'data')}, order {options['order']}{corrector}, "
        f"eta {options.get('eta', 0):g}, {options['grid']}, tau {options.get('temperature', 1):g}"
    )


def photos(options: argparse.Namespace) -> tuple[Tensor, Tensor, list[str]]:
    """Centre crops under rain, clean, and names; spread evenly over the folder."""
    dataset = CleanFolder(options.photos, Rain(), crop_size=options.crop, seed=5)
    dataset.check()
    count = min(options.images, len(dataset))
    samples = [dataset[i * (len(dataset) // count)] for i in range(count)]
    lq, gt = (torch.stack([sample[key] for sample in samples]) for key in ("lq", "gt"))
    return lq, gt, [sample["name"] for sample in samples]


def search(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a (candidate, NFE)."""
    denoiser = load_model(options.checkpoint, options.device)
    device = next(denoiser.parameters()).device
    lq, gt, names = photos(options)
    lpips = LPIPS.find(options.lpips_weights)
    rows = []
    runs = list(product(candidates(), options.nfes))
    for candidate, nfe in track(runs, console=Console(stderr=True)):
        sampler = MRSampler(nfe=nfe, **candidate)
        restored = sampler(denoiser, lq.to(device), named_noise(0, names)).cpu()
        values = measure(restored, gt, names=("psnr", "lpips"), lpips=lpips)
        row = {name: float(value.mean()) for name, value in values.items()}
        row["sw"] = 100 * sliced_wasserstein(restored.clamp(0, 1), gt)
        rows.append({"nfe": nfe, "sampler": label(candidate), **row})
    return rows


def markdown(rows: Sequence[dict[str, Any]], top: int) -> str:
    """The best of each NFE and metric."""
    lines = []
    for nfe in sorted({row["nfe"] for row in rows}):
        for metric, (sign, _) in METRICS.items():
            if metric not in rows[0]:
                continue
            names = [name for name in METRICS if name in rows[0]]
            lines += ["", f"NFE {nfe}, by {metric}", "", f"| sampler | {' | '.join(names)} |"]
            lines.append("|---" * (len(names) + 1) + "|")
            found = [row for row in rows if row["nfe"] == nfe]
            for row in sorted(found, key=lambda row: sign * row[metric])[:top]:
                cells = " | ".join(f"{row[name]:.{METRICS[name][1]}f}" for name in names)
                lines.append(f"| {row['sampler']} | {cells} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--photos", required=True, help="folder of clean photos")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--nfes", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--top", type=int, default=6)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--lpips_weights")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args(given)
    with torch.inference_mode():
        rows = search(options)
    print(markdown(rows, options.top))
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
