"""What each precision of ``sample.py --precision`` costs in decibels, and on a GPU saves in time.

    python -m benchmarks.precision --checkpoint A.ckpt B --pairs rainy noisy [--size 256]
        [--images 8] [--nfe 5] [--device auto]

Each folder of pairs has ``LQ/`` and ``GT/``; its name is the task, for a model that knows it. The
middles of ``size`` x ``size`` pixels are restored with the same noise in every precision. ``to
fp32`` is the mean PSNR of the restorations to those of fp32, ``restored`` that to the truth. A CPU
that does not compute in 16 bits emulates them, a hundred times slower: the decibels are as good,
and seconds are given for a GPU alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.int8 import mean_psnr, pairs_parser, read_pairs
from mrdiff import Restorer
from mrdiff.acceleration.precision import set_precision
from mrdiff.networks.protocol import known_tasks
from mrdiff.system.devices import pick_device
from mrdiff.system.names import PRECISIONS

EMULATED = {"bf16": torch.bfloat16, "fp16": torch.float16}


def load(checkpoint: Path, precision: str, task: str, options: argparse.Namespace) -> Restorer:
    given = {"device": options.device, "nfe": options.nfe, "tile": "off", "precision": "fp32"}
    restorer = Restorer.from_checkpoint(checkpoint, **given)
    if task in known_tasks(restorer.denoiser.network):
        restorer.task = task
    if restorer.device.type == "cpu":
        restorer.denoiser.network.to(EMULATED.get(precision, torch.float32))
    else:
        set_precision(restorer.denoiser.network, precision)
    return restorer


def restore(restorer: Restorer, images: Sequence[Tensor]) -> tuple[list[Tensor], float]:
    """The photos one by one, and the median of their seconds, the first ones apart."""
    results, seconds = [], []
    for image in (*images[:1] * 3, *images) if restorer.device.type == "cuda" else images:
        start = time.perf_counter()
        results.append(restorer.restore(image, [""]))
        seconds.append(time.perf_counter() - start)
    return results[-len(images) :], statistics.median(seconds[-len(images) :])


def run(checkpoint: Path, folder: Path, options: argparse.Namespace) -> None:
    pairs = read_pairs(folder, options.size)[: options.images]
    degraded, truth = [lq for lq, _ in pairs], [gt for _, gt in pairs]
    exact: list[Tensor] = []
    for precision in PRECISIONS["torch"][1:]:
        restorer = load(checkpoint, precision, folder.name, options)
        on_gpu = restorer.device.type == "cuda"
        if precision == "tf32" and not on_gpu:
            continue
        restored, seconds = restore(restorer, degraded)
        exact = exact or restored
        cells = [folder.name, str(len(pairs)), precision]
        cells += [f"{mean_psnr(restored, exact):.1f}", f"{mean_psnr(degraded, truth):.2f}"]
        cells += [f"{mean_psnr(restored, truth):.2f}", *([f"{seconds:.4f}"] if on_gpu else [])]
        print(f"| {' | '.join(cells)} |", flush=True)


def main(given: Sequence[str] | None = None) -> int:
    parser = pairs_parser(__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(given)
    head = ["pairs", "photos", "precision", "to fp32", "input", "restored"]
    head += ["s"] if pick_device(options.device).type == "cuda" else []
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for checkpoint, folder in zip(options.checkpoint, options.pairs, strict=True):
        run(checkpoint, folder, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
