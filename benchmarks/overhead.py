"""What a sampler costs beside the network: time per call with a network that only answers.

    python -m benchmarks.overhead [--rounds 60]

CPU time on 1x3x256x256, float32, one thread; planning the run is included. The unit is one linear
combination of four such tensors, measured in the same rounds; for stochastic samplers also one
randn.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from benchmarks.gpu import Ready
from mrdiff import Denoiser, MRProcess, make_sampler
from mrdiff.diffusion.parameterization import DATA

NAMES = (
    *("mr-ode-1", "mr-ode-2", "mr-ode-3", "mr-sde-1", "mr-sde-2"),
    *("euler-ode", "heun-ode", "euler-sde", "posterior"),
)
STOCHASTIC = ("mr-sde-1", "mr-sde-2", "euler-sde", "posterior")
SHAPE = (1, 3, 256, 256)
UNIT, RANDN = "4-term linear combination", "randn"


def combination() -> Callable[[], object]:
    """a y + b p + c q + d r in the fewest passes that torch has: one multiplies, three add."""
    y, p, q, r = (torch.rand(SHAPE) for _ in range(4))
    return lambda: (0.4 * y).add_(p, alpha=0.3).add_(q, alpha=0.2).add_(r, alpha=0.1)


def tasks(nfe: int) -> dict[str, tuple[Callable[[], object], int]]:
    """What is timed, and by how many calls its time is divided."""
    denoiser, mu = Denoiser(Ready(torch.randn(SHAPE)), MRProcess(), DATA), torch.rand(SHAPE)
    found: dict[str, tuple[Callable[[], object], int]] = {
        UNIT: (combination(), 1),
        RANDN: (lambda: torch.randn(SHAPE), 1),
    }
    for name in NAMES:
        found[name] = (partial(make_sampler(name, nfe=nfe), denoiser, mu), nfe)
    return found


def milliseconds(nfe: int, rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds, per network call."""
    todo = tasks(nfe)
    times: dict[str, list[float]] = {name: [] for name in todo}
    for round_ in range(rounds + 3):  # the first warm up
        for name, (work, calls) in todo.items():
            start = time.thread_time()
            work()
            if round_ >= 3:
                times[name].append(1e3 * (time.thread_time() - start) / calls)
    return {name: statistics.median(values) for name, values in times.items()}


def markdown(times: dict[str, float], nfe: int) -> str:
    """Milliseconds and the ratio to what the step cannot do without."""
    lines = [
        f"Per network call at NFE {nfe}",
        "",
        "| | ms | ratio to the combination | ratio to combination + randn |",
        "|---|---|---|---|",
    ]
    unit, both = times[UNIT], times[UNIT] + times[RANDN]
    for name, value in times.items():
        with_randn = f"{value / both:.2f}" if name in STOCHASTIC else ""
        lines.append(f"| {name} | {value:.3f} | {value / unit:.2f} | {with_randn} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--nfe", type=int, default=10)
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    print(markdown(milliseconds(options.nfe, options.rounds), options.nfe))
    return 0


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
