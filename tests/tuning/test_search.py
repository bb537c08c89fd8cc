"""Optimised grids on closed-form problems: never worse than the named ones, and exact spectra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mrdiff import CosineTheta, MRProcess, MRSampler, make_sampler
from mrdiff.metrics import Meter, psnr
from mrdiff.solvers.gridfile import read_grid, write_grid
from mrdiff.solvers.noise import named_noise
from mrdiff.solvers.oracle import GaussianOracle, MixtureOracle
from mrdiff.solvers.timegrid import check_times, make_times, start_time
from mrdiff.tuning.calibration import Calibration
from mrdiff.tuning.search import (
    NAMED_GRIDS,
    _Steps,
    search_grids,
    search_times,
)
from mrdiff.tuning.spectrum import (
    Spectrum,
    gains,
    residual_spectrum,
    search_spectrum,
    spectrum_error,
    white_spectrum,
)
from tests.oracles import SCHEDULES

F64 = torch.float64
PROCESS = MRProcess()
MU = torch.full((3, 3, 12, 12), 0.4, dtype=F64)
NAMES = ["a", "b", "c"]
SOLVERS: tuple[dict[str, Any], ...] = (
    {"order": 1},
    {"order": 2, "corrector": True},
    {"order": 3, "prediction": "noise"},
    {"order": 2, "prediction": "velocity", "temperature": 0.5},
)


def mixture() -> MixtureOracle:
    return MixtureOracle(PROCESS, means=(-0.3, 0.0, 0.4), stds=(0.05,) * 3, weights=(1.0, 2.0, 1.0))


def calibration(oracle: Any = None, **options: Any) -> Calibration:
    noise = named_noise(0, NAMES)
    return Calibration(oracle or mixture(), MU, noise=noise, **options)


def check_found(times: Sequence[float], process: MRProcess, nfe: int) -> None:
    assert len(times) == nfe + 1
    check_times(torch.tensor(times, dtype=F64), start_time(process))


@pytest.mark.parametrize("solver", SOLVERS[::2])
@pytest.mark.parametrize("oracle", [GaussianOracle, mixture])
def test_found_times_beat_every_named_grid(solver: dict[str, Any], oracle: Any) -> None:
    denoiser = mixture() if oracle is mixture else GaussianOracle(PROCESS)
    problem = calibration(denoiser, options=solver)
    for nfe, found in problem.search((2, 4)).items():
        check_found(found.times, PROCESS, nfe)
        assert tuple(found.before) == NAMED_GRIDS
        assert found.after <= min(found.before.values())
        assert found.evaluations <= 25 * (nfe - 1) + 5
        assert found.after < 0.95 * min(found.before.values()) or nfe == 2
        times = torch.tensor(found.times, dtype=F64)
        assert problem.value(times) == found.after  # the same run, repeated


def test_the_distance_is_that_to_the_exact_flow() -> None:
    """On the Gaussian oracle the reference of 100 calls is the closed form."""
    oracle = GaussianOracle(PROCESS)
    noise = named_noise(0, NAMES)
    exact = MU + oracle.flow_end(PROCESS.sigma_max * noise(0, MU.shape).double())
    restored = MRSampler(nfe=3, grid="uniform_t")(oracle, MU, noise=noise)
    expected = 255 * float((restored - exact).square().mean().sqrt())
    value = calibration(oracle).value(make_times("uniform_t", PROCESS, 3))
    assert value == pytest.approx(expected, rel=1e-3)


def test_the_value_does_not_depend_on_the_chunks() -> None:
    times = make_times("uniform_t", PROCESS, 3)
    values = [calibration(chunk=chunk).value(times) for chunk in (1, 2, 3)]
    assert values == pytest.approx([values[0]] * 3, rel=1e-12)


def test_a_generator_draws_once() -> None:
    problem = Calibration(mixture(), MU, noise=torch.Generator().manual_seed(1))
    times = make_times("uniform_t", PROCESS, 3)
    assert problem.value(times) == problem.value(times)


def truth() -> Tensor:
    """What the flow makes of other noise: images like those that the sampler returns."""
    return MRSampler(nfe=50)(mixture(), MU, noise=named_noise(1, NAMES))


@pytest.mark.parametrize("metric", ["psnr", "ssim"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_metric_is_maximised(metric: str, eta: float) -> None:
    problem = calibration(metric=metric, truth=truth(), options={"eta": eta})
    found = problem.search((3,))[3]
    check_found(found.times, PROCESS, 3)
    assert found.after >= max(found.before.values())


def test_lpips_is_minimised() -> None:
    class Distance(Meter):
        def forward(self, restored: Tensor, target: Tensor) -> dict[str, Tensor]:
            return {"lpips": (restored - target).abs().mean(dim=(1, 2, 3))}

        def fitting(self, height: int, width: int) -> list[str]:
            return ["lpips"]

    found = calibration(metric="lpips", truth=truth(), meter=Distance([])).search((3,))[3]
    assert found.after <= min(found.before.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"options": {"eta": 0.5}}, "stochastic sampler .eta=0.5. has no reference solution"),
        ({"metric": "psnr"}, "psnr needs the ground truth"),
        ({"metric": "lpips", "truth": MU}, "cannot search by lpips: no weights of AlexNet here"),
        ({"metric": "fid"}, "unknown metric 'fid': use one of distance, psnr"),
        ({"options": {"order": 7}}, "order must be"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MRDIFF_LPIPS_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=message):
        calibration(**options)


def test_images_smaller_than_the_window_are_refused() -> None:
    small = MU[..., :10, :10]
    with pytest.raises(ValueError, match="cannot search by ssim: the images are too small"):
        Calibration(mixture(), small, metric="ssim", truth=small)


def test_one_call_has_no_times_to_choose() -> None:
    with pytest.raises(ValueError, match="nfe is 2 or more"):
        calibration().search((1,))


@pytest.mark.parametrize("nfe", [2, 4])
def test_times_that_run_into_each_other_are_survived(nfe: int) -> None:
    """The best value is at the very start, where all times meet."""
    found = search_times(lambda times: -float(times[1:].sum()), PROCESS, nfe)
    check_found(found.times, PROCESS, nfe)


def test_values_that_are_not_finite_are_survived_or_named() -> None:
    inner = lambda times: abs(float(times[1]) - 0.7)  # noqa: E731
    holes = lambda times: math.nan if times[1] > 0.72 else inner(times)  # noqa: E731
    found = search_times(holes, PROCESS, 2)
    assert found.after < 0.02
    low = search_times(lambda t: math.nan if t[1] > 0.3 else inner(t), PROCESS, 2)
    assert low.before["uniform_t"] == math.inf
    assert low.after < min(low.before.values())
    with pytest.raises(ValueError, match="gives a finite value"):
        search_times(lambda times: math.nan, PROCESS, 3)


def test_the_cap_holds_and_progress_reaches_the_end() -> None:
    seen: list[tuple[str, int, int]] = []
    found = calibration().search(
        (4, 6), evaluations=14, progress=lambda *report: seen.append(report)
    )
    assert found[4].evaluations <= 14 + 5
    assert {label for label, _, _ in seen} == {"nfe 4", "nfe 6"}
    for label in ("nfe 4", "nfe 6"):
        done = [d for name, d, _ in seen if name == label]
        assert done == sorted(done)
        assert done[-1] == next(total for name, _, total in seen if name == label)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("grid", [*NAMED_GRIDS, "karras"])
def test_free_numbers_and_times_are_inverse(name: str, grid: str) -> None:
    process = MRProcess(SCHEDULES[name])
    steps = _Steps(process)
    for nfe in (2, 3, 6):
        times = make_times(grid, process, nfe)
        again = steps.times(steps.logits(times))
        # Times too near to the end of the log-SNR are moved away from it.
        assert torch.allclose(again, times, atol=1e-6 if "table" not in name else 0.02)
        check_times(again, start_time(process))
        check_times(steps.refined(times, nfe + 2), start_time(process))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("size", [0.0, 1.0, 100.0])
def test_any_free_numbers_are_a_grid(name: str, size: float) -> None:
    process = MRProcess(SCHEDULES[name])
    generator = torch.Generator().manual_seed(0)
    for nfe in (2, 5, 10):
        logits = size * torch.randn(nfe - 1, generator=generator, dtype=F64)
        times = _Steps(process).times(logits.numpy())
        assert times[0] == start_time(process)
        assert times[-1] == 0
        assert (times.diff() < 0).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_has_an_optimum(name: str) -> None:
    process = MRProcess(SCHEDULES[name])
    for nfe, found in search_spectrum(process, white_spectrum(0.1), (2, 3), evaluations=15).items():
        check_found(found.times, process, nfe)
        assert found.after <= min(found.before.values())


def test_found_times_are_a_grid_file(tmp_path: Path) -> None:
    found = search_spectrum(PROCESS, white_spectrum(0.15), (2, 3), evaluations=10)
    path = tmp_path / "grid.yaml"
    rows = {nfe: list(result.times) for nfe, result in found.items()}
    write_grid(path, rows, PROCESS, made={"route": "spectrum"})
    assert read_grid(path).times == rows
    for nfe in (2, 3):
        assert MRSampler(nfe=nfe, grid=str(path)).times(PROCESS).tolist() == rows[nfe]
    with pytest.raises(ValueError, match="make a grid for this model"):
        MRSampler(nfe=3, grid=str(path)).times(MRProcess(sigma_max=0.1))


def test_found_times_are_a_grid_file_where_sampling_starts_after_1(tmp_path: Path) -> None:
    process = MRProcess(CosineTheta(alpha_min=1e-5))
    assert start_time(process) < 0.99
    found = search_spectrum(process, white_spectrum(0.15), (2, 3), evaluations=10)
    path = tmp_path / "grid.yaml"
    write_grid(path, {nfe: list(one.times) for nfe, one in found.items()}, process, made={})
    for nfe, one in found.items():
        times = MRSampler(nfe=nfe, grid=path).times(process).tolist()
        assert times == [start_time(process), *one.times[1:]]
        check_found(one.times, process, nfe)


def test_a_grid_file_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nfe=2 must fall from 1 to 0"):
        write_grid(tmp_path / "grid.yaml", {2: [0.9, 0.5, 0.0]}, PROCESS, made={})
    assert not any(tmp_path.iterdir())


def test_a_named_sampler_is_calibrated_on_other_times() -> None:
    truth, times = MU + 0.1, [1.0, 0.6, 0.2, 0.0]
    options = {"name": "fidelity"}
    value = calibration(metric="psnr", truth=truth, options=options).value(torch.tensor(times))
    restored = make_sampler("fidelity", nfe=3, grid=times)(mixture(), MU)
    assert value == pytest.approx(float(psnr(restored, truth).mean()))
    with pytest.raises(ValueError, match="a grid is for the mr samplers"):
        calibration(metric="psnr", truth=truth, options={"name": "posterior"})


# The spectrum


@pytest.mark.parametrize("std", [0.02, 0.15])
@pytest.mark.parametrize("solver", SOLVERS[:3])
def test_a_white_spectrum_is_the_gaussian_oracle(std: float, solver: dict[str, Any]) -> None:
    """The gain is the slope of the result over the prior noise."""
    oracle = GaussianOracle(PROCESS, mean=0.0, std=std)
    sampler = MRSampler(nfe=4, grid="uniform_t", **solver)
    ones = lambda step, shape: torch.ones(*shape, dtype=F64)  # noqa: E731
    slope = float((sampler(oracle, MU, noise=ones) - MU).mean())
    gain = gains(sampler, PROCESS, white_spectrum(std))
    assert gain.shape == (1, 1)
    assert float(gain) == pytest.approx(slope, rel=1e-12)
    expected = 255 * abs(slope - std)
    assert spectrum_error(sampler, PROCESS, white_spectrum(std)) == pytest.approx(expected)


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("corrector", [False, True])
def test_the_variance_is_what_monte_carlo_finds(eta: float, corrector: bool) -> None:
    std, count = 0.15, 3 * 256 * 256
    sampler = MRSampler(nfe=5, order=2, eta=eta, grid="uniform_t", corrector=corrector)
    gain = gains(sampler, PROCESS, white_spectrum(std))
    assert gain.shape == (5, 1)
    oracle = GaussianOracle(PROCESS, mean=0.0, std=std)
    mu = torch.zeros(1, 3, 256, 256, dtype=F64)
    y0 = sampler(oracle, mu, noise=torch.Generator().manual_seed(0))
    variance = float(gain.square().sum())
    assert float(y0.var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / count))
    error = spectrum_error(sampler, PROCESS, white_spectrum(std))
    assert error == pytest.approx(255 * abs(math.sqrt(variance) - std))


def test_many_calls_leave_no_error() -> None:
    power = torch.logspace(-5, 0, 20, dtype=F64)
    spectrum = Spectrum(power, torch.full_like(power, 1 / 20))
    few, many = (
        spectrum_error(MRSampler(nfe=nfe, order=3), PROCESS, spectrum) for nfe in (10, 200)
    )
    assert many < 0.05 < few


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_spectrum_grids_beat_every_named_grid(eta: float) -> None:
    power = torch.logspace(-4, 0, 30, dtype=F64)
    spectrum = Spectrum(power, torch.linspace(2, 0, 30, dtype=F64) / 30)
    for nfe, found in search_spectrum(
        PROCESS, spectrum, (2, 4), options={"eta": eta}, evaluations=25
    ).items():
        check_found(found.times, PROCESS, nfe)
        assert found.after < min(found.before.values())
        sampler = MRSampler(nfe=nfe, eta=eta, grid=found.times)
        assert spectrum_error(sampler, PROCESS, spectrum) == pytest.approx(found.after)


def test_the_temperature_does_not_move_the_times() -> None:
    warm, cold = (
        search_spectrum(PROCESS, white_spectrum(0.1), (2,), options={"temperature": tau})
        for tau in (1.0, 0.3)
    )
    assert warm[2].times == cold[2].times


def test_white_noise_has_a_flat_spectrum_of_its_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    residuals = [0.2 + 0.1 * torch.randn(3, 96, 128, generator=generator) for _ in range(6)]
    spectrum = residual_spectrum(residuals, window=32)
    assert float(spectrum.weight.sum()) == pytest.approx(1)
    mean = float((spectrum.weight * spectrum.power).sum())
    assert mean == pytest.approx(0.1**2, rel=0.02)
    assert float(spectrum.power.max()) < 1.6 * 0.1**2  # the mean residual is not in it
    assert float(spectrum.power.min()) > 0.6 * 0.1**2


def test_smooth_residuals_have_their_power_at_few_frequencies() -> None:
    x = torch.arange(128) * (2 * math.pi * 4 / 64)
    wave = 0.1 * torch.cos(x).expand(3, 128, 128)
    spectrum = residual_spectrum([wave])
    total = float((spectrum.weight * spectrum.power).sum())
    assert total == pytest.approx(0.1**2 / 2, rel=0.05)  # Parseval: the variance of the wave
    assert float(spectrum.weight[spectrum.power > 0.01 * spectrum.power.max()].sum()) < 0.01


@pytest.mark.parametrize("residuals", [[], [torch.ones(3, 40, 80)], [torch.zeros(3, 64, 64)]])
def test_residuals_without_a_spectrum_are_refused(residuals: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="spectrum"):
        residual_spectrum(residuals)


def test_a_wrong_spectrum_is_refused() -> None:
    one = torch.ones(2, dtype=F64)
    for power, weight in ((one, one), (0 * one, one / 2), (one[:1], one / 2)):
        with pytest.raises(ValueError, match="spectrum"):
            Spectrum(power, weight)


def test_a_search_starts_from_the_times_of_fewer_calls() -> None:
    """A value whose optimum is even in log-SNR: the refined grid is the best start."""
    target = {nfe: make_times("uniform_log_snr", PROCESS, 5 * nfe)[::5][:nfe] for nfe in (3, 4)}

    def value(times: Tensor) -> float:
        wanted = target[len(times) - 1]
        gap = PROCESS.log_snr(times[1:-1]) - PROCESS.log_snr(wanted[1:])
        return float(gap.square().sum())

    found = search_grids(value, PROCESS, (4, 3))
    assert list(found) == [3, 4]
    assert all(result.after < 0.01 for result in found.values())
