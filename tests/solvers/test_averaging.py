"""The running mean of predictions: what it is, and why it helps without noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mrdiff import MRProcess, MRSampler, Prediction, make_sampler
from mrdiff.solvers.corrections import AveragedDenoiser
from tests.oracles import GaussianOracle

F64 = torch.float64
MU = torch.full((2, 3, 8, 8), 0.5, dtype=F64)
TRUTH = MU + 0.1


class Erring:
    """Knows the clean image but for an error of its own at each call."""

    process = MRProcess()

    def __init__(self, errors: list[float]) -> None:
        self.errors = errors
        self.calls = 0

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        del t, mu
        x0 = TRUTH + self.errors[self.calls]
        self.calls += 1
        return Prediction(x0, torch.full_like(x, torch.nan))


def test_each_prediction_is_the_mean_of_all_so_far() -> None:
    averaged = AveragedDenoiser(Erring([0.3, -0.1, 0.4]))
    t = torch.tensor(0.5, dtype=F64)
    seen = [averaged(MU, t, MU).x0 for _ in range(3)]
    for x0, error in zip(seen, (0.3, 0.1, 0.2), strict=True):  # earlier ones are left as they were
        assert torch.allclose(x0, TRUTH + error, atol=1e-14)


def test_eps_agrees_with_the_mean() -> None:
    averaged = AveragedDenoiser(Erring([0.3, -0.1]))
    x = MU + 0.07
    for time in (0.9, 0.4):
        t = torch.tensor(time, dtype=F64)
        x0, eps = averaged(x, t, MU)
        assert torch.allclose(Erring.process.marginal(x0, MU, t, eps), x, atol=1e-14)


@pytest.mark.parametrize("prediction", ["data", "velocity"])
def test_errors_that_differ_from_call_to_call_cancel(prediction: str) -> None:
    errors = (
        torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=F64).mul(0.02).tolist()
    )
    restored = {}
    for average in (False, True):
        denoiser = Erring(errors)
        sampler = MRSampler(nfe=6, order=1, temperature=0.0, average=average, prediction=prediction)
        restored[average] = sampler(denoiser, MU)
        assert denoiser.calls == 6
    assert torch.allclose(restored[True], TRUTH + sum(errors) / 6, atol=1e-12)
    assert torch.allclose(restored[False], TRUTH + errors[-1], atol=1e-12)


@pytest.mark.parametrize("grid", ["uniform_log_snr", "uniform_angle", "uniform_t", "power(2)"])
def test_where_all_estimates_are_right_nothing_changes(grid: str) -> None:
    oracle = GaussianOracle(MRProcess(), mean=0.1, std=0.05)
    for nfe in (1, 2, 5, 20):
        restored = MRSampler(nfe=nfe, order=1, grid=grid, temperature=0.0, average=True)(oracle, MU)
        assert torch.allclose(restored, TRUTH, atol=1e-3)


def test_each_run_begins_anew() -> None:
    sampler = make_sampler("fidelity", nfe=3)
    oracle = GaussianOracle(MRProcess(), mean=0.1, std=0.05)
    first = sampler(oracle, MU)
    assert torch.equal(sampler(oracle, MU), first)
    assert torch.equal(sampler(oracle, MU[:1]), first[:1])


def test_the_option_is_kept_in_checkpoints_and_off_by_default() -> None:
    assert make_sampler("fidelity", nfe=5).options()["average"] is True
    assert MRSampler().average is False
