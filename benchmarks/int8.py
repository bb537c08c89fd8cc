"""Trained networks by torch and by OpenVINO in float32, bfloat16 and 8 bits: seconds and decibels.

    python -m benchmarks.int8 --checkpoint A.ckpt B.ckpt --pairs A_PAIRS B_PAIRS [--size 256]
        [--images 8] [--nfe 5] [--rounds 3]

Each folder of pairs has ``LQ/`` and ``GT/``. Their middles of ``size`` x ``size`` pixels are used:
every second photo, at most ``images``, to watch the 8-bit ranges on, and the others to measure.
The variants take turns photo by photo; seconds are medians of a whole restoration, without the
first, which translates the network. ``torch`` is what ``sample.py`` runs: prepared blocks, kept
memory.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mrdiff.system.cores import set_process_defaults

set_process_defaults()

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mrdiff import Restorer  # noqa: E402
from mrdiff.acceleration.backends import OpenVINONetwork  # noqa: E402
from mrdiff.acceleration.int8 import input_ranges  # noqa: E402
from mrdiff.metrics import psnr  # noqa: E402
from mrdiff.photo import centre_crop, list_images, read_rgb  # noqa: E402
from mrdiff.system.devices import computes_bf16  # noqa: E402

Pair = tuple[Tensor, Tensor]


def read_pairs(folder: Path, size: int) -> list[Pair]:
    """Those that are large enough."""
    truths = {path.stem: path for path in list_images(folder / "GT")}
    both = [(p, truths[p.stem]) for p in list_images(folder / "LQ") if p.stem in truths]
    images = [(read_rgb(lq), read_rgb(gt)) for lq, gt in both]
    large = [pair for pair in images if min(pair[0].shape[-2:]) >= size]
    return [(centre_crop(lq, size)[None], centre_crop(gt, size)[None]) for lq, gt in large]


def variants(restorer: Restorer, watched: list[Pair]) -> dict[str, nn.Module]:
    network = restorer.denoiser.network
    with input_ranges(network) as ranges:
        for lq, _ in watched:
            restorer.restore(lq, [""])
    found = {"torch": network, "openvino fp32": OpenVINONetwork(network)}
    if computes_bf16(torch.device("cpu")):
        found["openvino bf16"] = OpenVINONetwork(network, precision="bf16")
    found["openvino int8"] = OpenVINONetwork(network, precision="int8", ranges=ranges)
    return found


def run(checkpoint: Path, folder: Path, options: argparse.Namespace) -> None:
    """Print the rows of a checkpoint; the name of its pairs stands for it."""
    pairs = read_pairs(folder, options.size)
    if len(pairs) < 2:
        sys.exit(f"{folder}: fewer than two pairs of {options.size} pixels")
    restorer = Restorer.from_checkpoint(checkpoint, device="cpu", nfe=options.nfe, tile="off")
    networks = variants(restorer, pairs[1::2][: options.images])
    measured = pairs[::2][: options.images]
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    shown: dict[str, list[Tensor]] = {name: [] for name in networks}
    for turn in range(options.rounds + 1):
        for lq, _ in measured if turn else measured[:1]:
            for name, network in networks.items():
                restorer.denoiser.network = network
                start = time.perf_counter()
                restored = restorer.restore(lq, [""])
                if turn:
                    seconds[name].append(time.perf_counter() - start)
                if turn == 1:
                    shown[name].append(restored)
    plain, truth = shown["torch"], [gt for _, gt in measured]
    before = mean_psnr([lq for lq, _ in measured], truth)
    for name in networks:
        ratio = statistics.median(
            a / b for a, b in zip(seconds["torch"], seconds[name], strict=True)
        )
        cells = [folder.name, name, f"{statistics.median(seconds[name]):.3f}", f"{ratio:.2f}"]
        cells += [f"{decibels(shown[name], plain):.1f}", f"{before:.2f}"]
        cells += [f"{mean_psnr(shown[name], truth):.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def decibels(images: list[Tensor], others: list[Tensor]) -> float:
    """Of all of them together, and not in whole grey levels: small differences count."""
    errors = [(a - b).double().square().mean() for a, b in zip(images, others, strict=True)]
    return float(-10 * torch.stack(errors).mean().log10())


def mean_psnr(images: list[Tensor], others: list[Tensor]) -> float:
    return statistics.mean(float(psnr(a, b)) for a, b in zip(images, others, strict=True))


def pairs_parser(description: str) -> argparse.ArgumentParser:
    """The flags of benchmarks that restore pairs with checkpoints."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--checkpoint", type=Path, nargs="+", required=True)
    parser.add_argument("--pairs", type=Path, nargs="+", required=True)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--nfe", type=int, default=5)
    return parser


def main(given: Sequence[str] | None = None) -> int:
    parser = pairs_parser(__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(given)
    torch.set_grad_enabled(False)
    head = ["pairs", "network by", "s / restoration", "ratio", "PSNR to torch's"]
    head += ["PSNR of the input", "PSNR restored"]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for checkpoint, folder in zip(options.checkpoint, options.pairs, strict=True):
        run(checkpoint, folder, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
