"""Every clock, order and corrector converges as fast as it declares, on every schedule."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.convergence import CLOCKS, ORDERS, SCHEDULES, fitted_slope, flow_error
from mrdiff import MRProcess, MRSampler
from mrdiff.solvers.clock import ClockName
from mrdiff.solvers.oracle import GaussianOracle

COUNTS = (226, 320, 453)  # below, the noise clock of order 4 has not settled


@pytest.mark.parametrize("corrector", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_declared_order(schedule: str, clock: ClockName, order: int, corrector: bool) -> None:
    """Order ``order`` alone, one more with the corrector."""
    process = MRProcess(SCHEDULES[schedule])
    with torch.inference_mode():
        errors = [
            flow_error(process, n, prediction=clock, order=order, corrector=corrector)
            for n in COUNTS
        ]
    assert fitted_slope(COUNTS, errors) >= order + corrector - 0.15


def test_the_slope_of_a_power_law_is_its_exponent() -> None:
    counts = (10, 20, 40)
    assert fitted_slope(counts, [7 * n**-2.5 for n in counts]) == pytest.approx(2.5)


@pytest.mark.parametrize("order", [2, 3])
def test_noise_clock_reaches_the_closed_form_distribution_with_eta_1(order: int) -> None:
    """At NFE 400 on 2^14 pixels: mean and variance within 4 Monte-Carlo errors and 1 %."""
    oracle = GaussianOracle(MRProcess())
    mu = torch.zeros(1, 1, 128, 128, dtype=torch.float64)
    sampler = MRSampler(nfe=400, order=order, eta=1.0, prediction="noise")
    y0 = sampler(oracle, mu, noise=torch.Generator().manual_seed(1))
    count = y0.numel()
    assert abs(float(y0.mean()) - oracle.mean) < 4 * oracle.std / math.sqrt(count)
    assert abs(float(y0.var()) / oracle.std**2 - 1) < 4 * math.sqrt(2 / count) + 0.01
