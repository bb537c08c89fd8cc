"""What a GPU makes of networks, samplers, photos and training: one line of JSON a row.

    python -m benchmarks.gpu [nets sampler restore train check] [--seconds 1] [--minutes 5]
        [--official FILE.py] [--smoke] [--device cuda]

* nets: milliseconds of 5 calls of mr-ode-2, random weights of full size, by precision, with and
  without CUDA graph and compiler; with ``--official`` (see :mod:`benchmarks.official_nets`) the
  authors' code at torch's defaults first, and ``times`` is the ratio of its time to the row's.
* sampler: what the solver costs a step beside a network that only answers: operations, and on a GPU
  kernels, copies from the host, and waits for the device.
* restore: photos of a folder a second, as ``sample.py`` restores them, and one photo of 24 MP.
* train: images a second of ``train.py``, and of the same run on one batch that is on the device.
* check: whether graphs give the eager numbers to the bit, the PSNR of each precision against fp32,
  and the tests that want a device or a compiler.

``gemm`` is the product of large matrices that the device does in the row's number type in the same
process, in TFLOP/s, and ``share`` what the row reaches of it. A row takes about ``--seconds`` and
its preparation; after ``--minutes`` no further row of nets begins. ``--smoke`` runs every kind of
row with small networks, on the CPU too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu_runs, official_nets
from mrdiff import Denoiser, MRProcess, MRSampler, TabulatedTheta, make_sampler
from mrdiff.acceleration.backends import use_inductor
from mrdiff.acceleration.precision import set_precision
from mrdiff.diffusion.parameterization import DATA, NOISE
from mrdiff.networks import DACLIPUNet, IRSDEUNet, RefusionNAFNet, UNet
from mrdiff.restoration.graphs import Graphs, sample
from mrdiff.system.devices import computes_in
from mrdiff.system.names import SAMPLERS

Row = dict[str, Any]
Sizes = tuple[int, int]  # of the batch and of a side

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet-1.8M": lambda: UNet(**gpu_runs.SMALL),
    "unet-5.2M": lambda: UNet(**gpu_runs.LARGE),
    "irsde": IRSDEUNet,
    "refusion": RefusionNAFNet,
    "daclip": DACLIPUNet,
}
TINY: dict[str, Callable[[], nn.Module]] = {
    "unet": lambda: UNet(widths=(8, 16), encoder=(1,), decoder=(1,)),
    "irsde": lambda: IRSDEUNet(width=8, depth=2),
}
# Graphs and the compiler come with the precisions that commands choose.
WAYS = [("fp32", ""), ("tf32", ""), ("tf32", "graph"), ("bf16", ""), ("bf16", "graph")]
WAYS += [("fp16", "graph"), ("bf16", "compile+graph")]
_TYPES = {"fp32": torch.float32, "tf32": torch.float32}
_TYPES |= {"bf16": torch.bfloat16, "fp16": torch.float16}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """The median, each time waited for, over about so many seconds."""
    for _ in range(3):
        work()
    times, begin = list[float](), time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < seconds:
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def set_switches(precision: str) -> None:
    """Torch's for float32: its own defaults for the authors' code."""
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.set_float32_matmul_precision("highest" if precision in ("fp32", "default") else "high")


@lru_cache
def gemm(device: torch.device, precision: str, side: int) -> float:
    """TFLOP/s."""
    set_switches(precision)
    square = torch.rand(side, side, device=device).to(_TYPES.get(precision, torch.float32))
    return 2e-9 * side**3 / milliseconds(lambda: square @ square, device, 0.3)


def context_of(name: str, batch: int, device: torch.device) -> dict[str, Tensor] | None:
    if name != "daclip":
        return None
    return {key: torch.randn(batch, 512, device=device) for key in ("text", "image")}


class Nets:
    """Rows of networks."""

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        self.options, self.device = options, device
        self.process = MRProcess(TabulatedTheta.irsde("cosine"))
        self.sampler = MRSampler(nfe=5)

    def __call__(self) -> Iterator[Row]:
        smoke = self.options.smoke
        sizes = [(1, 32)] if smoke else [(1, 256), (8, 256), (1, 512)]
        for size in sizes:
            for name in TINY if smoke else NETWORKS:
                theirs = None
                if self.options.official and name in official_nets.NETWORKS:
                    theirs = yield from self._row(name, "default", "official", size, None)
                for precision, way in WAYS:
                    # Compiling takes longer than all other rows of a network.
                    rare = "compile" in way and (
                        size != sizes[0] or name not in ("irsde", "unet-5.2M")
                    )
                    native = precision == "fp32" or computes_in(precision, self.device)
                    if native and not (rare and not smoke) and time.monotonic() < self.options.end:
                        yield from self._row(name, precision, way, size, theirs)

    def _row(
        self, name: str, precision: str, way: str, size: Sizes, theirs: float | None
    ) -> Iterator[Row]:
        batch, side = size
        row: Row = {"row": "nets", "net": name, "batch": batch, "side": side, "way": way or "eager"}
        row["precision"] = precision
        try:
            run, flops = self._restoration(name, precision, way, size)
            row["ms"] = milliseconds(run, self.device, self.options.seconds)
        except Exception as error:  # of CUDA or the compiler: the next row may do
            yield {**row, "error": str(error).splitlines()[0]}
            return None
        best = gemm(self.device, precision, 256 if self.options.smoke else 8192)
        row |= {"gemm": best, "share": flops / row["ms"] / 1e9 / best}
        yield row if theirs is None else {**row, "times": theirs / row["ms"]}
        return row["ms"]

    @torch.no_grad()
    def _restoration(
        self, name: str, precision: str, way: str, size: Sizes
    ) -> tuple[Callable[[], object], float]:
        batch, side = size
        if way == "official":
            network = official_nets.make(name, "official", self.options.official)
        else:
            torch.manual_seed(0)
            made = (TINY if self.options.smoke else NETWORKS)[name]()
            network = official_nets.awake(made).to(memory_format=torch.channels_last)
        network = network.to(self.device)
        mu = torch.rand(batch, 3, side, side, device=self.device)
        context = context_of(name, batch, self.device)
        with FlopCounterMode(display=False) as counter:
            network(mu, mu, torch.ones(batch, device=self.device), context)
        set_switches(precision)
        if way != "official":
            set_precision(network, precision)
        if "compile" in way:
            use_inductor(network)
        target = DATA if name.startswith("unet") else NOISE
        denoiser = Denoiser(network, self.process, target)
        graphs = Graphs(device_type="cuda" if "graph" in way else "none")
        noise = torch.randn_like(mu)

        @torch.no_grad()
        def run() -> Tensor:
            return sample(graphs, self.sampler, denoiser, mu, lambda *_: noise, context)

        return run, self.sampler.nfe * float(counter.get_total_flops())


class Ready(nn.Module):
    """Answers at once."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer, requires_grad=False)

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: None = None) -> Tensor:
        return self.answer


@torch.no_grad()
def solvers(options: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    side = 32 if options.smoke else 256
    mu, noise = torch.rand(2, 1, 3, side, side, device=device)
    denoiser = Denoiser(Ready(torch.randn_like(mu)), MRProcess(), NOISE)
    for name in SAMPLERS:
        short, long = (make_sampler(name, nfe=nfe) for nfe in (5, 25))

        def run(sampler: Any) -> Callable[[], Tensor]:
            return lambda: sampler(denoiser, mu, noise=lambda *_: noise)

        times = [milliseconds(run(s), device, options.seconds / 2) for s in (short, long)]
        counts = [gpu_runs.counted(run(s), device) for s in (short, long)]
        each = {key: (counts[1][key] - counts[0][key]) / 20 for key in counts[0]}
        yield {"row": "sampler", "name": name, "ms": (times[1] - times[0]) / 20, **each}


def rows(options: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    kinds: dict[str, Callable[[], Iterator[Row]]] = {
        "nets": Nets(options, device),
        "sampler": lambda: solvers(options, device),
        "restore": lambda: gpu_runs.restore(device, smoke=options.smoke),
        "train": lambda: gpu_runs.train(device, seconds=10 * options.seconds, smoke=options.smoke),
        "check": lambda: gpu_runs.check(device, smoke=options.smoke),
    }
    for kind in options.kinds or kinds:
        try:
            yield from kinds[kind]()
        except Exception as error:  # the other kinds may do
            yield {"row": kind, "error": f"{type(error).__name__}: {error}".splitlines()[0]}


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--official", type=Path)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(given)
    options.end = time.monotonic() + 60 * options.minutes
    if options.smoke:
        options.seconds = 0.01
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    failed = False
    for row in rows(options, device):
        failed |= "error" in row
        numbers = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}
        print(json.dumps({**numbers, "device": name}), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
