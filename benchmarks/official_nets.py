"""The networks of IR-SDE, Refusion and DA-CLIP on the CPU: plain, and prepared for a run.

    python -m benchmarks.official_nets [--nets refusion daclip irsde] [--rounds 3] [--size 256]
        [--official FILE.py] [--variants official plain prepared kept compile openvino ...]
    python -m benchmarks.official_nets --train --official FILE.py [--size 128] [--rounds 5]

Random weights of the full size, one image of 256 x 256 pixels, float32. Each measurement is a
process of its own, which reports the seconds of a network call, those of a restoration by mr-ode-2
in 5 calls, and its peak memory; variants take turns in each round, and medians are shown:

* official: a file of the authors' networks that you have (``--official``: it defines ``IRSDE``,
  ``DACLIP`` and ``NAFNet``, called as ``(x, mu, raw time)``, DA-CLIP's with ``text_context`` and
  ``image_context``), sampled by the same solver;
* plain: ours as in training, channels last;
* prepared: what the samplers call;
* kept: prepared, in a process whose C library keeps freed memory, as ``sample.py`` has it;
* compile, openvino, openvino-bf16, openvino-int8: kept, with that option of ``sample.py``; the
  8-bit ranges are watched in the same restoration.

The ratio is to the first row. ``difference`` is the largest of the network's outputs, over the
largest output, and ``GEMM`` the product of 2048 x 2048 matrices that the machine can do in the
same process, in GFLOP/s: with it, times of other machines can be compared.

``--train`` is another table: a training step, forward and backward, of a batch of two. The authors'
network and ours in both memory formats, with equal weights, take turns in one process; seconds are
medians, processor time beside the clock's, and so are the ratios, taken round by round.
``gradient`` is the largest difference of a parameter's gradient, over its norm.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mrdiff import Denoiser, MRProcess, MRSampler, TabulatedTheta
from mrdiff.acceleration.backends import OpenVINONetwork, use_inductor
from mrdiff.acceleration.int8 import Ranges, input_ranges
from mrdiff.diffusion.parameterization import NOISE
from mrdiff.diffusion.wrappers import BoundDenoiser
from mrdiff.networks import DACLIPUNet, IRSDEUNet, RefusionNAFNet
from mrdiff.system.cores import keep_freed_memory

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "refusion": RefusionNAFNet,
    "daclip": DACLIPUNet,
    "irsde": IRSDEUNet,
}
VARIANTS = ("official", "plain", "prepared", "kept", "compile")
VARIANTS += ("openvino", "openvino-bf16", "openvino-int8")
_OFFICIAL = {"refusion": "NAFNet", "daclip": "DACLIP", "irsde": "IRSDE"}


class Official(nn.Module):
    """The authors' network under our signature; not prepared, for its parts are not ours."""

    def __init__(self, network: nn.Module, steps: int = 100) -> None:
        super().__init__()
        self.network, self.steps = network, steps

    def forward(
        self, x: Tensor, mu: Tensor, t: Tensor, context: dict[str, Tensor] | None = None
    ) -> Tensor:
        given = {f"{name}_context": value for name, value in (context or {}).items()}
        out: Tensor = self.network(x, mu, t * self.steps, **given)
        return out


def awake(network: nn.Module) -> nn.Module:
    """The network as it is made, but without its layers that start at zero."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        if not parameter.any():
            parameter.data.normal_(std=0.05, generator=generator)
    return network.eval().requires_grad_(False)


def make(name: str, variant: str, official: Path | None) -> nn.Module:
    """The network of a name; all variants have the same weights."""
    torch.manual_seed(0)
    network = awake(NETWORKS[name]())
    if variant == "contiguous":
        return network
    if variant != "official":
        return network.to(memory_format=torch.channels_last)
    spec = importlib.util.spec_from_file_location("official_networks", official)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    theirs: nn.Module = getattr(module, _OFFICIAL[name])()
    theirs.load_state_dict(network.state_dict())
    return Official(theirs.eval().requires_grad_(False))


def best(work: Callable[[], object], times: int) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def no_noise(step: int, shape: Sequence[int]) -> Tensor:
    return torch.zeros(*shape)


def watched(sampler: MRSampler, model: Any, network: nn.Module, mu: Tensor) -> Ranges:
    """8-bit ranges of a restoration."""
    with input_ranges(network) as ranges:
        sampler(model, mu, no_noise)
    return ranges


def step(network: nn.Module, *given: Any) -> tuple[float, float]:
    """Seconds of a training step, of the processor and by the clock."""
    network.zero_grad(set_to_none=True)
    processor, clock = time.process_time(), time.perf_counter()
    network(*given).square().mean().backward()
    return time.process_time() - processor, time.perf_counter() - clock


def largest_difference(ours: nn.Module, theirs: nn.Module) -> float:
    """Of the gradients of parameters that both have used."""
    others = {name: p.grad for name, p in theirs.named_parameters()}
    pairs = [(p.grad, others[name]) for name, p in ours.named_parameters() if p.grad is not None]
    return max(float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in pairs)


def training(name: str, size: int, rounds: int, official: Path | None) -> None:
    """Print the rows of one network's training step."""
    variants = [*(["official"] if official else []), "contiguous", "channels last"]
    networks = {variant: make(name, variant, official) for variant in variants}
    x, mu = torch.rand(2, 2, 3, size, size)
    text, image = torch.randn(2, 2, 512)
    context = {"text": text, "image": image} if name == "daclip" else None
    seconds: dict[str, list[tuple[float, float]]] = {variant: [] for variant in variants}
    for turn in range(rounds + 1):
        for variant, network in networks.items():
            network.train().requires_grad_(True)
            taken = step(network, x, mu, torch.tensor([0.5, 0.3]), context)
            if turn:  # the first warms up
                seconds[variant].append(taken)
    first = networks[variants[0]]
    first = first.network if isinstance(first, Official) else first
    for variant, network in networks.items():
        own = network.network if isinstance(network, Official) else network
        processor, clock = map(statistics.median, zip(*seconds[variant], strict=True))
        pairs = list(zip(seconds[variants[0]], seconds[variant], strict=True))
        ratios = (statistics.median(a[i] / b[i] for a, b in pairs) for i in (0, 1))
        cells = [name, variant, f"{processor:.2f}", f"{clock:.2f}", *(f"{r:.2f}" for r in ratios)]
        print(f"| {' | '.join(cells)} | {largest_difference(own, first):.1e} |", flush=True)


@torch.no_grad()
def measure(name: str, variant: str, size: int, official: Path | None) -> dict[str, Any]:
    """One process: seconds, memory, and the output to compare."""
    if variant not in ("official", "plain", "prepared"):
        keep_freed_memory()
    generator = torch.Generator().manual_seed(0)
    square = torch.rand(2048, 2048, generator=generator)
    gemm = 2 * 2048**3 / best(lambda: square @ square, 8) / 1e9
    network = make(name, variant, official)
    x, mu = torch.rand(2, 1, 3, size, size, generator=generator)
    text, image = torch.randn(2, 1, 512, generator=generator)
    context = {"text": text, "image": image} if name == "daclip" else None
    process = MRProcess(TabulatedTheta.irsde("cosine"), 50 / 255)
    model: Any = BoundDenoiser(Denoiser(network, process, NOISE), context)
    sampler = MRSampler(nfe=5)
    t = torch.tensor([0.5])
    if variant == "compile":
        use_inductor(network)
    elif variant.startswith("openvino"):
        precision = variant.partition("-")[2] or "fp32"
        ranges = watched(sampler, model, network, mu) if precision == "int8" else None
        network = OpenVINONetwork(network, precision=precision, ranges=ranges)
        model = BoundDenoiser(Denoiser(network, process, NOISE), context)
    run: Callable[[], Tensor] = lambda: network(x, mu, t, context)  # noqa: E731
    if variant in ("prepared", "kept"):
        ready = network.prepare(mu, t, context)
        run = lambda: ready(x, mu, 0)  # noqa: E731
    elif variant == "plain":
        model.prepare = lambda *_: model  # sampled as it is
    output = run()
    seconds = best(run, 2)
    if variant == "compile":
        sampler(model, mu, no_noise)  # compiled once more for how a sampler calls it
    restoration = best(lambda: sampler(model, mu, no_noise), 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    facts = {"call": seconds, "restoration": restoration, "peak": peak, "gemm": gemm}
    return {**facts, "output": output.flatten().tolist()}


def one_process(name: str, variant: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.official_nets", "--one", name, variant]
    command += ["--size", str(options.size)]
    if options.official:
        command += ["--official", str(options.official)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def row(name: str, variant: str, runs: list[dict[str, Any]], first: list[dict[str, Any]]) -> str:
    def median(key: str, of: list[dict[str, Any]]) -> float:
        return statistics.median(run[key] for run in of)

    # Round by round: what slows the machine for a while slows both.
    ratio = statistics.median(
        a["restoration"] / b["restoration"] for a, b in zip(first, runs, strict=True)
    )
    ours, theirs = (torch.tensor(which[0]["output"]) for which in (runs, first))
    difference = (ours - theirs).abs().max() / theirs.abs().max()
    cells = [name, variant, f"{median('call', runs):.2f}", f"{median('restoration', runs):.2f}"]
    cells += [f"{ratio:.2f}", f"{median('peak', runs) / 2**30:.2f}", f"{difference:.1e}"]
    cells += [f"{median('gemm', runs):.0f}"]
    return f"| {' | '.join(cells)} |"


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, help="pixels a side: 256, or 128 with --train")
    parser.add_argument("--train", action="store_true", help="a training step")
    parser.add_argument("--official", type=Path)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS[:4])
    parser.add_argument("--one", nargs=2, metavar=("NET", "VARIANT"), help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    options.size = options.size or (128 if options.train else 256)
    if options.train:
        head = ["network", "variant", "processor s", "s", "ratio", "ratio", "gradient"]
        print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)
        for name in options.nets:
            training(name, options.size, options.rounds, options.official)
        return 0
    if options.one:
        print(json.dumps(measure(*options.one, options.size, options.official)))
        return 0
    variants = [name for name in options.variants if name != "official" or options.official]
    head = ["network", "variant", "s / call", "s / restoration", "ratio", "GiB", "difference"]
    print(f"| {' | '.join([*head, 'GEMM'])} |\n{'|---' * (len(head) + 1)}|")
    for name in options.nets:
        runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
        for _ in range(options.rounds):
            for variant in variants:
                runs[variant].append(one_process(name, variant, options))
        for variant in variants:
            print(row(name, variant, runs[variant], runs[variants[0]]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
