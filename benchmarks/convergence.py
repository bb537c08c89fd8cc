"""Measured order of convergence of every (clock, order, corrector) on every schedule.

    python -m benchmarks.convergence [--figure docs/convergence.png]

Prints the fitted slopes as a Markdown table and, with ``--figure``, draws the errors. The data are
Gaussian, where the probability-flow ODE has a closed form. The error is that of the state at the
last call, where sigma = 0.01: the step from there to t = 0 returns the prediction by design, which
costs O(sigma²) whatever the order. The grid is a smooth function of the step, equal in
(i / steps)^1.5 of log-SNR: small first steps keep the first-order start from counting. On such a
grid a schedule only says which t belongs to a log-SNR, so the schedules have to agree.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mrdiff import ConstantTheta, CosineTheta, LinearTheta, MRProcess, MRSampler
from mrdiff.diffusion.prediction import Prediction
from mrdiff.solvers.clock import ClockName
from mrdiff.solvers.oracle import GaussianOracle

CLOCKS: tuple[ClockName, ...] = ("data", "noise", "velocity")
ORDERS = (1, 2, 3, 4)
SCHEDULES = {"cosine": CosineTheta(), "linear": LinearTheta(), "constant": ConstantTheta()}
FITTED = (160, 226, 320, 453, 640)
DRAWN = (10, 14, 20, 28, 40, 57, 80, 113, *FITTED)
SIGMA_END = 0.01
START = torch.tensor([-1.5, -0.5, 0.3, 1.2], dtype=torch.float64).reshape(1, 1, 2, 2)


def smooth_grid(process: MRProcess, nfe: int) -> Tensor:
    """Times ``[nfe + 1]``: from 1 down to where sigma = 0.01, then 0."""
    first = process.log_snr(torch.ones((), dtype=torch.float64))
    alpha2 = 1 - (SIGMA_END / process.sigma_max) ** 2
    last = 0.5 * np.log(alpha2) - np.log(SIGMA_END)
    share = torch.linspace(0, 1, nfe, dtype=torch.float64) ** 1.5
    times = process.t_of_log_snr(first + (last - first) * share)
    times[0] = 1
    return torch.cat([times, times.new_zeros(1)])


def flow_error(
    process: MRProcess, nfe: int, *, prediction: ClockName, order: int, corrector: bool
) -> float:
    """Largest error of the last state, against the exact flow from the same prior."""
    seen: list[tuple[float, Tensor]] = []

    def keep(step: int, t: float, x: Tensor, predicted: Prediction) -> None:
        seen[:] = [(t, x)]

    sampler = MRSampler(
        nfe=nfe, order=order, grid=smooth_grid, prediction=prediction, corrector=corrector
    )
    oracle = GaussianOracle(process)
    sampler(oracle, torch.zeros_like(START), noise=lambda step, shape: START, callback=keep)
    t, x = seen[0]
    ends = torch.tensor([t, 1.0], dtype=torch.float64)
    alpha = process.alpha(ends)
    spread = torch.sqrt(alpha**2 * oracle.std**2 + process.sigma(ends) ** 2)
    # the standardized state is constant along the flow
    standard = (process.sigma_max * START - alpha[1] * oracle.mean) / spread[1]
    return float((x - alpha[0] * oracle.mean - spread[0] * standard).abs().max())


def fitted_slope(counts: Sequence[int], errors: Sequence[float]) -> float:
    """Minus the least-squares slope of log(error) over log(count)."""
    return -float(np.polyfit(np.log(counts), np.log(errors), 1)[0])


def methods() -> Iterator[tuple[ClockName, int, bool]]:
    """Every (clock, order, corrector)."""
    return itertools.product(CLOCKS, ORDERS, (False, True))


def slopes(process: MRProcess) -> dict[tuple[ClockName, int, bool], float]:
    """The fitted slope of every method."""
    found = {}
    for clock, order, corrector in methods():
        errors = [
            flow_error(process, n, prediction=clock, order=order, corrector=corrector)
            for n in FITTED
        ]
        found[clock, order, corrector] = fitted_slope(FITTED, errors)
    return found


def markdown() -> str:
    """The table of slopes."""
    by_schedule = {name: slopes(MRProcess(schedule)) for name, schedule in SCHEDULES.items()}
    lines = [
        f"| clock | order | corrector | declared | {' | '.join(SCHEDULES)} |",
        "|---" * (4 + len(SCHEDULES)) + "|",
    ]
    for clock, order, corrector in methods():
        cells = [f"{table[clock, order, corrector]:.2f}" for table in by_schedule.values()]
        first = (clock, str(order), "yes" if corrector else "no", str(order + corrector))
        lines.append(f"| {' | '.join([*first, *cells])} |")
    return "\n".join(lines)


def draw(path: Path) -> None:
    """Error against NFE: one panel a clock, one colour an order, dashed with the corrector."""
    process = MRProcess()
    colours = ("#4477aa", "#ee7733", "#228833", "#aa3377")
    figure = Figure(figsize=(11, 4.4), layout="constrained", dpi=150)
    panels = figure.subplots(1, len(CLOCKS), sharex=True, sharey=True)
    for panel, clock in zip(panels, CLOCKS, strict=True):
        for order, corrector in itertools.product(ORDERS, (False, True)):
            errors = [
                flow_error(process, n, prediction=clock, order=order, corrector=corrector)
                for n in DRAWN
            ]
            panel.loglog(
                DRAWN,
                errors,
                color=colours[order - 1],
                linestyle="--" if corrector else "-",
                linewidth=1.8,
                label=f"order {order}{', corrector' if corrector else ''}",
            )
        _guides(panel)
        panel.set_title(f'prediction="{clock}"', fontsize=13)
        panel.set_xlabel("network calls", fontsize=12)
    panels[0].set_ylabel("error of the state", fontsize=12)
    handles, labels = panels[0].get_legend_handles_labels()
    pairs = [*range(0, 8, 2), *range(1, 8, 2)]  # the row without, then the row with corrector
    order_of = [pairs[i // 2 + 4 * (i % 2)] for i in range(8)]
    figure.legend(
        [handles[i] for i in order_of],
        [labels[i] for i in order_of],
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=11,
    )
    figure.savefig(path, facecolor="white")


def _guides(panel: Axes) -> None:
    """A fan of thin grey lines of slope 1 to 5, and plain axes."""
    ends = np.array([12.0, 45.0])
    for slope in range(1, 6):
        errors = 3e-8 * (ends / ends[0]) ** -slope
        panel.loglog(ends, errors, color="0.6", linewidth=1.2)
        panel.text(48, errors[1], f"slope {slope}", color="0.4", fontsize=9.5, va="center")
    panel.set_xlim(9, 720)
    panel.set_ylim(1e-12, 1)
    panel.set_xticks([10, 20, 50, 100, 200, 500], ["10", "20", "50", "100", "200", "500"])
    panel.minorticks_off()
    panel.tick_params(labelsize=11)
    panel.grid(True, color="0.92")
    panel.spines[["top", "right"]].set_visible(False)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, help="draw the errors on the cosine schedule here")
    options = parser.parse_args(given)
    print(markdown())
    if options.figure:
        draw(options.figure)
    return 0


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
