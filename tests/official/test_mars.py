"""The official sampler's numbers, and where mrdiff differs from them on purpose."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from mrdiff import MRProcess, MRSampler, Prediction, TabulatedTheta
from mrdiff.official.mars import MarsSampler, data_step, order_plan
from mrdiff.official.mars_tables import OfficialPoint, OfficialTables, Schedule, interpolate
from mrdiff.solvers.timegrid import uniform_log_snr
from tests.oracles import GaussianOracle, fitted_slope
from tests.places import TEST_DATA

F64, F32 = torch.float64, torch.float32
FINE = partial(uniform_log_snr, sigma_end=5e-5)  # for stopping costs an error of sigma²
SIGMA_MAX = 50 / 255
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
TIME_SCHEDULES = ("linspace", "leading", "trailing", "karras-n", "karras-t", "linear-lambda")
FOLDER = TEST_DATA / "mars"
DESCRIBED = json.loads((FOLDER / "cases.json").read_text(encoding="utf-8"))
CASES: list[dict[str, Any]] = [{**DESCRIBED["defaults"], **case} for case in DESCRIBED["cases"]]
LABELS = ["-".join(str(v) for v in case.values()) for case in DESCRIBED["cases"]]


@cache
def vectors() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "vectors.npz", allow_pickle=False) as file:
        return dict(file)


def recorded_noise(step: int, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(vectors()["noise"][step])


def closed_form(target: str, top: float) -> Callable[[Tensor, Tensor, float], Tensor]:
    """The network of tests/data/mars/README.md; ``top`` is sigma_max."""

    def network(x: Tensor, mu: Tensor, raw: float) -> Tensor:
        u = raw / 100
        a = math.exp(-5.3 * u**2)
        s = top * math.sqrt(1.001 - a**2)
        gain = 0.0225 * a / (0.0225 * a**2 + s**2)
        y = x - mu
        y0 = 0.3 + gain * (y - 0.3 * a) + 0.02 * torch.sin(4 * x + 3 * u)
        eps = (y - a * y0) / s
        return {"data": mu + y0, "noise": eps, "velocity": a * top * eps - s * y0 / top}[target]

    return network


def sampler_of(case: dict[str, Any], dtype: torch.dtype, **more: Any) -> MarsSampler:
    skipped = ("calls", "fit_target", "max_sigma")
    options = {key: value for key, value in case.items() if key not in skipped}
    if options["lambda_min"] is None:
        options["lambda_min"] = -math.inf
    return MarsSampler(**options, dtype=dtype, **more)


def run(case: dict[str, Any], dtype: torch.dtype, **more: Any) -> tuple[Tensor, list[Tensor]]:
    """(result, states at the network calls) of a case in the parity sampler."""
    top = case["max_sigma"] / 255 if case["max_sigma"] >= 1 else case["max_sigma"]
    network, states = closed_form(case["fit_target"], top), []

    def watched(x: Tensor, mu: Tensor, raw: float) -> Tensor:
        states.append(x)
        return network(x, mu, raw)

    mu = torch.from_numpy(vectors()["mu"]).to(dtype)
    sampler = sampler_of(case, dtype, **more)
    end = sampler.sample_raw(
        watched, mu, recorded_noise, fit_target=case["fit_target"], sigma_max=top
    )
    return end, states


def relative(found: Tensor, expected: np.ndarray) -> float:
    """Greatest difference over the greatest value."""
    assert found.shape == expected.shape
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())


# Measured: 5e-14 at most in float64. In float32 the official code rounds each coefficient and table
# entry to 6e-8, and the noise form multiplies that by alpha_0 / alpha_T = 200 and more: 3e-5 at
# most, 2e-6 in data form.
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-9), (F32, 2e-4)])
@pytest.mark.parametrize("index", range(len(CASES)), ids=LABELS)
def test_result_is_the_official_one(index: int, dtype: torch.dtype, tolerance: float) -> None:
    case = CASES[index]
    expected = vectors()[f"ends_{str(dtype).removeprefix('torch.')}"][index]
    end, states = run(case, dtype, output_range=None)
    assert end.dtype == dtype
    assert len(states) == case["calls"]
    assert relative(end, expected) < tolerance
    assert torch.equal(run(case, dtype)[0], end.clamp(0, 1))


@pytest.mark.parametrize("index", [i for i in range(len(CASES)) if f"states_{i}" in vectors()])
def test_every_state_is_the_official_one(index: int) -> None:
    expected = vectors()[f"states_{index}"]
    end, states = run(CASES[index], F64, output_range=None)
    for found, official in zip([*states, end], expected, strict=True):
        assert relative(found, official) < 1e-9


# In float32 the official tables are summed up in float32, ours in float64 and then rounded.
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-13), (F32, 1e-5)])
def test_tables_are_the_official_ones(dtype: torch.dtype, tolerance: float) -> None:
    stored = vectors()[f"tables_{str(dtype).removeprefix('torch.')}"]
    for schedule, expected in zip(SCHEDULES, stored, strict=True):
        tables = OfficialTables.build(
            schedule, steps=100, eps=0.005, sigma_max=SIGMA_MAX, dtype=dtype
        )
        alpha, sigma, log_snr = (table.numpy() for table in tables[1:])
        np.testing.assert_allclose(alpha, expected[0], rtol=tolerance)
        np.testing.assert_allclose(sigma, expected[1], rtol=tolerance)
        np.testing.assert_allclose(log_snr, expected[2], atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-10), (F32, 1e-4)])
@pytest.mark.parametrize("name", TIME_SCHEDULES)
def test_times_are_the_official_ones(name: str, dtype: torch.dtype, tolerance: float) -> None:
    stored = vectors()[f"times_{str(dtype).removeprefix('torch.')}"][:, TIME_SCHEDULES.index(name)]
    for index in np.ndindex(stored.shape[:3]):
        schedule, nfe = SCHEDULES[index[0]], (3, 5, 10, 20)[index[1]]
        sampler = MarsSampler(
            nfe=nfe,
            time_schedule=name,
            schedule=schedule,
            lambda_min=(-math.inf, -5.0, -3.0)[index[2]],
            dtype=dtype,
        )
        found = [point.time for point in sampler.grid(SIGMA_MAX)]
        official = stored[index][~np.isnan(stored[index])]
        np.testing.assert_allclose(found, official, atol=tolerance)


class CallableDenoiser:
    """A function (x, t, mu) -> Prediction with a process."""

    def __init__(self, function: Callable[[Tensor, float, Tensor], Prediction]) -> None:
        self.function, self.process = function, MRProcess()

    def __call__(self, x: Tensor, t: Tensor, mu: Tensor) -> Prediction:
        return self.function(x, float(t), mu)


@pytest.mark.parametrize("form", ["data", "noise"])
@pytest.mark.parametrize("solver", ["ode", "sde"])
def test_a_denoiser_gives_what_its_raw_network_gives(form: str, solver: str) -> None:
    case = {**DESCRIBED["defaults"], "parameterization": form, "solver": solver, "fit_target": form}
    data, noise = closed_form("data", SIGMA_MAX), closed_form("noise", SIGMA_MAX)
    denoiser = CallableDenoiser(
        lambda x, t, mu: Prediction(data(x, mu, 100 * t), noise(x, mu, 100 * t))
    )
    seen: list[tuple[int, float]] = []
    keep = lambda step, t, x, prediction: seen.append((step, round(t, 12)))  # noqa: E731
    mu = torch.from_numpy(vectors()["mu"])
    restored = sampler_of(case, F64)(denoiser, mu, recorded_noise, keep)
    assert torch.allclose(restored, run(case, F64)[0], atol=1e-12)
    assert seen == [(0, 1.0), (1, 0.8), (2, 0.6), (3, 0.4), (4, 0.2)]


def test_order_plan() -> None:
    assert order_plan(5, 3) == [(1, 1), (2, 2), (3, 2), (4, 1), (5, 3)]
    assert order_plan(10, 3)[2:] == [(i, 3) for i in range(3, 11)]
    assert order_plan(2, 3) == [(1, 1), (2, 2), (2, 3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nfe": 0}, "2 or more falling times"),
        ({"nfe": 1, "order": 3}, "3 or more falling times"),
        ({"nfe": 100, "time_schedule": "leading"}, "falling times"),
        ({"lambda_min": 7.0}, "falling times"),
        ({"time_schedule": "karras"}, "time_schedule"),
        ({"schedule": "sine"}, "sine"),
        ({"order": 4}, "order 4"),
        ({"solver": "sde", "order": 3}, "order 3"),
        ({"solver": "pde"}, "pde"),
        ({"parameterization": "velocity"}, "velocity"),
    ],
)
def test_what_the_official_code_cannot_do_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MarsSampler(**options).grid(SIGMA_MAX)


def test_unknown_fit_targets_and_options_are_refused() -> None:
    mu = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match="fit_target"):
        MarsSampler().sample_raw(lambda x, m, t: x, mu, fit_target="score", sigma_max=0.2)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        MarsSampler(eta=1.0)  # type: ignore[call-arg]


def test_half_precision_images_are_solved_in_float32() -> None:
    mu = torch.full((1, 3, 8, 8), 0.4, dtype=torch.bfloat16)
    restored = MarsSampler(nfe=3)(GaussianOracle(MRProcess()), mu)
    assert restored.dtype == F32


# From here on: what mrdiff does differently.

MU = torch.full((1, 1, 8, 8), 0.4, dtype=F64)


class OnExactGrid(MarsSampler):
    """The official formulas on mrdiff's own times and exact alpha, sigma, lambda."""

    def grid(self, sigma_max: float) -> list[OfficialPoint]:
        process = MRProcess(sigma_max=sigma_max)
        times = FINE(process, self.nfe)
        times[-1] = times[-2] / 2  # denoise_last never steps there
        tables = times * self.steps, *(f(times) for f in (process.alpha, process.sigma))
        columns = [column.tolist() for column in (*tables, process.log_snr(times))]
        return [OfficialPoint(*row) for row in zip(*columns, strict=True)]


def flow_error(sampler: MarsSampler | MRSampler) -> float:
    oracle = GaussianOracle(MRProcess())
    pixels = recorded_noise(0, ())[:, :1]
    restored = sampler(oracle, MU, lambda step, shape: pixels)
    return float((restored - MU - oracle.flow_end(SIGMA_MAX * pixels)).abs().max())


def test_order_three_has_order_two_there_and_three_here() -> None:
    counts = [40, 57, 80, 113, 160]
    theirs, ours = [], []
    for nfe in counts:
        official = OnExactGrid(nfe=nfe, order=3, denoise_last=True, output_range=None)
        theirs.append(flow_error(official))
        ours.append(flow_error(MRSampler(nfe=nfe, order=3, grid=FINE)))
    assert fitted_slope(counts, theirs) == pytest.approx(2.2, abs=0.2)
    assert fitted_slope(counts, ours) >= 2.85
    assert ours[-1] < theirs[-1] / 20


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("solver", ["ode", "sde"])
def test_orders_one_and_two_agree_on_an_exact_grid(order: int, solver: str) -> None:
    official = OnExactGrid(
        nfe=12, order=order, solver=solver, denoise_last=True, output_range=None, dtype=F64
    )
    noise = [
        torch.randn(MU.shape, dtype=F64, generator=torch.Generator().manual_seed(i))
        for i in range(13)
    ]
    oracle, source = GaussianOracle(MRProcess()), lambda step, shape: noise[step]
    sampler = MRSampler(nfe=12, order=order, eta=float(solver == "sde"), grid=FINE)
    ours = sampler(oracle, MU, source)
    assert float((official(oracle, MU, source) - ours).abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("schedule", "identity", "log_snr"),
    [("cosine", 2.0e-4, 0.054), ("linear", 2.6e-4, 0.059), ("constant", 4.2e-3, 0.0125)],
)
def test_tables_disagree_between_entries_there_and_agree_here(
    schedule: Schedule, identity: float, log_snr: float
) -> None:
    """alpha² + (sigma / sigma_max)² - 1 and lambda - log(alpha / sigma)."""
    tables = OfficialTables.build(schedule, steps=100, eps=0.005, sigma_max=SIGMA_MAX, dtype=F64)
    raw = torch.linspace(0, 100, 10001, dtype=F64)
    process = MRProcess(TabulatedTheta.irsde(schedule, keep_first=True))
    t = raw / 100
    theirs = [interpolate(raw, tables.times, table) for table in tables[1:]]
    ours = [f(t) for f in (process.alpha, process.sigma, process.log_snr)]
    gaps = []
    for alpha, sigma, lam in (theirs, ours):
        unity = (alpha**2 + (sigma / SIGMA_MAX) ** 2 - 1).abs().max()
        gaps.append((float(unity), float((lam - torch.log(alpha / sigma)).abs().max())))
    assert gaps[0] == pytest.approx((identity, log_snr), rel=0.03)
    assert max(gaps[1]) < 1e-12


def test_the_last_step_extrapolates_there_and_is_the_prediction_here() -> None:
    for order, weights in ((2, [3.22, -2.24]), (3, [5.69, -7.08, 2.37])):
        grid = MarsSampler(nfe=5, order=order, dtype=F64).grid(SIGMA_MAX)
        step = data_step(grid, 5, order, kappa=1)
        assert step.decay == pytest.approx(0.0282, rel=0.01)
        assert step.weights == pytest.approx(weights, rel=0.01)
    last: list[Tensor] = []
    keep = lambda step, t, x, prediction: last.append(prediction.x0)  # noqa: E731
    ours = MRSampler(nfe=5, order=2)(GaussianOracle(MRProcess()), MU, callback=keep)
    assert torch.allclose(ours, last[-1], atol=1e-14)


def test_the_last_sde_step_adds_noise_there_and_none_here() -> None:
    grid = MarsSampler(nfe=5, solver="sde", dtype=F64).grid(SIGMA_MAX)
    assert 255 * data_step(grid, 5, 2, kappa=2).noise == pytest.approx(0.565, rel=0.01)
    drawn: list[int] = []

    def counted(step: int, shape: Sequence[int]) -> Tensor:
        drawn.append(step)
        return torch.zeros(*shape)

    oracle = GaussianOracle(MRProcess())
    MRSampler(nfe=5, eta=1.0)(oracle, MU, counted)
    assert drawn == [0, 1, 2, 3, 4]
    drawn.clear()
    MarsSampler(nfe=5, solver="sde")(oracle, MU, counted)
    assert drawn == [0, 1, 2, 3, 4, 5]


def test_a_clean_white_image_changes_there_and_stays_here() -> None:
    """No noise and a network that returns mu, by 0.25 / 255 on linear-lambda times."""
    white, silent = torch.ones_like(MU), lambda step, shape: torch.zeros(*shape)
    same = CallableDenoiser(lambda x, t, mu: Prediction(mu, torch.zeros_like(mu)))
    official = MarsSampler(nfe=7, time_schedule="linear-lambda", dtype=F64, output_range=None)
    theirs = 255 * (official(same, white, silent) - white).abs().max()
    ours = 255 * (MRSampler(nfe=7)(same, white, silent) - white).abs().max()
    assert float(theirs) == pytest.approx(0.2547, rel=0.01)
    assert float(ours) < 1e-12


def ends_of(**options: Any) -> tuple[OfficialPoint, OfficialPoint, int]:
    grid = MarsSampler(dtype=F64, **options).grid(SIGMA_MAX)
    return grid[0], grid[-1], len(grid) - 1


def test_official_times_neither_start_at_the_prior_nor_end_at_zero() -> None:
    for nfe in (5, 20):
        assert ends_of(nfe=nfe, time_schedule="leading")[0].time == 80
    assert ends_of(nfe=5, lambda_min=-3.0)[0].time == 93
    _, end, made = ends_of(nfe=5, time_schedule="trailing")
    assert (end.time, 255 * end.sigma) == pytest.approx((100 / 6, 16.0), rel=0.01)
    assert made == 5
    assert ends_of(nfe=5, time_schedule="trailing", lambda_min=-2.0)[2] == 4
    end = ends_of(nfe=5, time_schedule="karras-t", lambda_min=-3.0)[1]
    assert (end.time, 255 * end.sigma) == pytest.approx((1, 1.096), rel=0.01)
    assert 255 * ends_of(nfe=5)[1].sigma == pytest.approx(0.565, rel=0.01)
    assert ends_of(nfe=5, time_schedule="karras-n", lambda_min=-3.0)[0].time == pytest.approx(100)
    times = MRSampler(nfe=5).times(MRProcess())
    assert (float(times[0]), float(times[-1])) == (1, 0)


def test_denoise_last_in_noise_form_returns_the_noise() -> None:
    denoiser = CallableDenoiser(lambda x, t, mu: Prediction(mu, torch.full_like(mu, 0.7)))
    official = MarsSampler(nfe=5, parameterization="noise", denoise_last=True)
    assert torch.equal(official(denoiser, MU), torch.full_like(MU, 0.7))
