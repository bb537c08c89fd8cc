"""The multistep solver and the baselines on the analytic Gaussian oracle."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mrdiff import GaussianPath, MRProcess, MRSampler, Prediction, make_sampler
from mrdiff.solvers.clock import Clock
from mrdiff.solvers.multistep import multistep_weights, plan_steps
from mrdiff.solvers.noise import named_noise
from mrdiff.solvers.timegrid import karras, make_times, uniform_log_snr
from mrdiff.system.names import SAMPLERS
from tests.oracles import (
    CONTINUOUS,
    PATHS,
    SCHEDULES,
    GaussianOracle,
    fitted_slope,
    oracle_denoiser,
)
from tests.places import ROOT

F64 = torch.float64
MU = torch.full((1, 1, 8, 8), 0.4, dtype=F64)


def fixed_noise(step: int, shape: Sequence[int]) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(step))


def flow_error(sampler: MRSampler, process: MRProcess) -> float:
    oracle = GaussianOracle(process)
    restored = sampler(oracle, MU, noise=fixed_noise)
    exact = oracle.flow_end(process.sigma_max * fixed_noise(0, MU.shape))
    return float((restored - MU - exact).abs().max())


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("spacing", [uniform_log_snr, karras])
def test_order_of_convergence(name: str, spacing: Callable[..., torch.Tensor], order: int) -> None:
    counts, grid = [40, 57, 80, 113, 160], partial(spacing, sigma_end=5e-5)  # which costs sigma²
    process = MRProcess(CONTINUOUS[name])
    errors = [flow_error(MRSampler(nfe=n, order=order, grid=grid), process) for n in counts]
    assert fitted_slope(counts, errors) >= order - 0.15


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_corrector_raises_the_order_by_one(name: str, order: int) -> None:
    counts, grid = [40, 57, 80, 113, 160], partial(uniform_log_snr, sigma_end=5e-5)
    process = MRProcess(CONTINUOUS[name])
    plain, corrected = (
        [flow_error(MRSampler(nfe=n, order=order, corrector=c, grid=grid), process) for n in counts]
        for c in (False, True)
    )
    assert fitted_slope(counts, corrected) >= order + 1 - 0.15
    assert corrected[-1] < plain[-1]


@pytest.mark.parametrize("order", [1, 2])
def test_order_between_two_inner_times(order: int) -> None:
    """The same without the ends, from t = 0.8 to 0.2, where the first-order first step counts.

    From t = 1 that step's error is damped by alpha, and orders 3 and 4 show in full.
    """
    process = MRProcess()
    oracle = GaussianOracle(process)
    lam = process.log_snr(torch.tensor([0.8, 0.2], dtype=F64))
    counts, errors = [64, 128, 256, 512], []
    for n in counts:
        times = process.t_of_log_snr(torch.linspace(float(lam[0]), float(lam[1]), n + 1, dtype=F64))
        y, history = torch.ones(1, dtype=F64), []
        clock = Clock.named("data")
        for step in plan_steps(process, times.tolist(), order=order, eta=0.0, clock=clock):
            history.insert(0, oracle(y, step.t, 0 * y).x0)
            used = zip(step.weights, history, strict=False)
            y = step.decay * y + sum(w * y0 for w, y0 in used)
        alpha, sigma = process.alpha(times), process.sigma(times)
        spread = torch.sqrt(alpha**2 * oracle.std**2 + sigma**2)
        exact = (1 - alpha[0] * oracle.mean) / spread[0] * spread[-1] + alpha[-1] * oracle.mean
        errors.append(float((y - exact).abs()))
    assert fitted_slope(counts, errors) >= order - 0.15


@given(
    st.lists(st.floats(-3, 0), min_size=1, max_size=4, unique_by=lambda u: round(u, 1)),
    st.floats(0.05, 6),
    st.floats(1, 2),
)
def test_weights_integrate_polynomials_exactly(nodes: list[float], h: float, kappa: float) -> None:
    """∫ kappa e^(-kappa (h - u)) u^k du by brute-force quadrature."""
    weights = -math.expm1(-kappa * h) * multistep_weights([u / h for u in nodes], kappa * h)
    u, w = np.polynomial.legendre.leggauss(100)
    u, w = h * (u + 1) / 2, h * w / 2
    for k in range(len(nodes)):
        exact = np.sum(w * kappa * np.exp(-kappa * (h - u)) * u**k)
        scale = np.abs(weights * np.array(nodes) ** k).sum() + abs(exact)
        assert np.sum(weights * np.array(nodes) ** k) == pytest.approx(exact, abs=1e-9 * scale)


@pytest.mark.parametrize("h", [1e-4, 1e-2, 1.0, 3.9, 4.1, 7.9, 8.1, 50.0])
@pytest.mark.parametrize("kappa", [1.0, 1.3, 2.0])
def test_weights_are_accurate_for_small_and_large_steps(h: float, kappa: float) -> None:
    z = kappa * h
    total = -math.expm1(-z)
    weights = total * multistep_weights([0.0, -1.0], z)
    first = 1 - total / z if z > 1e-2 else z / 2 - z**2 / 6 + z**3 / 24
    assert weights[0] + weights[1] == pytest.approx(total, rel=1e-12)
    assert -weights[1] == pytest.approx(first, rel=1e-7)


@pytest.mark.parametrize("nfe", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 3.0, math.inf])
def test_three_parameterizations_give_one_trajectory(nfe: int, eta: float) -> None:
    process = MRProcess()
    trajectories = []
    for name in ("data", "noise", "velocity"):
        states: list[torch.Tensor] = []
        denoiser = oracle_denoiser(GaussianOracle(process), name)
        keep = lambda step, t, x, prediction: states.append(x)  # noqa: E731, B023
        sampler = MRSampler(nfe=nfe, order=3, eta=eta)
        end = sampler(denoiser, MU, noise=fixed_noise, callback=keep)
        trajectories.append(torch.stack([*states, end]))
    assert float((trajectories[0] - trajectories[1]).abs().max()) < 1e-10
    assert float((trajectories[0] - trajectories[2]).abs().max()) < 1e-10


@pytest.mark.parametrize("order", [2, 3])
def test_reverse_sde_reaches_the_closed_form_distribution(order: int) -> None:
    """eta = 1 at NFE 200 on 2^16 pixels: mean and variance within 4 Monte-Carlo errors."""
    oracle = GaussianOracle(MRProcess())
    mu = torch.zeros(1, 1, 256, 256, dtype=F64)
    sampler = MRSampler(nfe=200, order=order, eta=1.0)
    y0 = sampler(oracle, mu, noise=torch.Generator().manual_seed(1))
    count = y0.numel()
    assert abs(float(y0.mean()) - 0.3) < 4 * 0.15 / math.sqrt(count)
    assert abs(float(y0.var()) / 0.15**2 - 1) < 4 * math.sqrt(2 / count)


def test_first_order_sde_has_a_bias_that_halves_with_the_step() -> None:
    """Order 1 is too narrow by about 6 % in variance at NFE 200; that is the scheme's own."""
    mu = torch.zeros(1, 1, 256, 256, dtype=F64)
    biases = []
    for nfe in (100, 200, 400):
        sampler = MRSampler(nfe=nfe, order=1, eta=1.0)
        y0 = sampler(GaussianOracle(MRProcess()), mu, noise=torch.Generator().manual_seed(1))
        biases.append(1 - float(y0.var()) / 0.15**2)
    assert biases[0] / biases[1] == pytest.approx(2, abs=0.5)
    assert biases[1] / biases[2] == pytest.approx(2, abs=0.8)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("nfe", [1, 2, 7, 30])
def test_posterior_sampling_equals_mr_sde_1(name: str, nfe: int) -> None:
    oracle = GaussianOracle(MRProcess(SCHEDULES[name]))
    ancestral = make_sampler("posterior", nfe=nfe)(oracle, MU, noise=fixed_noise)
    solver = MRSampler(nfe=nfe, order=1, eta=1.0, grid="uniform_t")
    assert float((ancestral - solver(oracle, MU, noise=fixed_noise)).abs().max()) < 1e-9


def forgetful(order: int, oracle: GaussianOracle, times: list[float]) -> torch.Tensor:
    """Each x0 noised anew; of order 2 the line in log-SNR through it and the one before."""
    path, found = oracle.process, list[tuple[float, torch.Tensor]]()
    x = path.centred(MU, times[0]) + path.start_std(times[0]) * fixed_noise(0, MU.shape)
    for i, (t, after) in enumerate(pairwise(times[:-1]), start=1):
        y0 = oracle(x, t, MU).x0 - MU
        found.append((float(path.log_snr(t)), y0))
        if order == 2 and i > 1:
            (old, before), (now, _) = found[-2:]
            y0 = y0 + (float(path.log_snr(after)) - now) / (now - old) * (y0 - before)
        noise = path.noise * path.sigma(after) * fixed_noise(i, MU.shape)
        x = path.centred(MU, after) + path.alpha(after) * y0 + noise
    return oracle(x, times[-2], MU).x0


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_an_infinite_eta_keeps_nothing_of_the_state(path: GaussianPath, order: int) -> None:
    for nfe in (1, 2, 5):
        sampler = MRSampler(nfe=nfe, order=order, eta=math.inf)
        expected = forgetful(order, GaussianOracle(path), sampler.times(path).tolist())
        restored = sampler(GaussianOracle(path), MU, noise=fixed_noise)
        torch.testing.assert_close(restored, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_an_infinite_eta_is_the_limit_of_finite_ones(order: int) -> None:
    def restored(eta: float, *, corrector: bool = False) -> torch.Tensor:
        sampler = MRSampler(nfe=6, order=order, eta=eta, corrector=corrector)
        return sampler(GaussianOracle(MRProcess()), MU, noise=fixed_noise)

    limit = restored(math.inf)
    # The moments of order 1 and above approach theirs with 1 / eta², the first does sooner.
    etas = [8, 16, 32, 64]
    off = [float((restored(eta) - limit).abs().max()) for eta in etas]
    if order == 1:
        assert max(off) < 1e-12
        assert float((restored(1.0) - limit).abs().max()) > 1e-3
    else:
        assert fitted_slope(etas, off) == pytest.approx(2, abs=0.1)
    assert torch.equal(restored(1e200), limit)
    # What was extrapolated is forgotten before it could be corrected.
    torch.testing.assert_close(restored(math.inf, corrector=True), limit, rtol=0, atol=1e-12)


def test_the_preset_for_distilled_models_forgets_the_state() -> None:
    process = MRProcess()
    for nfe in (1, 2, 4):
        preset = make_sampler("consistency", nfe=nfe)
        own = MRSampler(nfe=nfe, order=1, eta=math.inf, grid="uniform_angle(0.1)")
        assert preset.options() == own.options()
        expected = forgetful(1, GaussianOracle(process), own.times(process).tolist())
        restored = preset(GaussianOracle(process), MU, noise=fixed_noise)
        torch.testing.assert_close(restored, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["euler-ode", "heun-ode"])
def test_ode_baselines_approach_the_exact_flow(name: str) -> None:
    process = MRProcess()
    oracle = GaussianOracle(process)
    exact = oracle.flow_end(process.sigma_max * fixed_noise(0, MU.shape))
    errors = [
        float((make_sampler(name, nfe=n)(oracle, MU, fixed_noise) - MU - exact).abs().max())
        for n in (25, 100, 400)
    ]
    assert errors[0] > 2.5 * errors[1] > 6 * errors[2]


def test_euler_maruyama_reaches_the_closed_form_distribution() -> None:
    mu = torch.zeros(1, 1, 128, 128, dtype=F64)
    sampler = make_sampler("euler-sde", nfe=1000)
    y0 = sampler(GaussianOracle(MRProcess()), mu, noise=torch.Generator().manual_seed(1))
    assert float(y0.mean()) == pytest.approx(0.3, abs=0.01)
    assert float(y0.std()) == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_noise_is_added_on_the_step_to_zero(name: str) -> None:
    drawn: list[int] = []

    def counted(step: int, shape: Sequence[int]) -> torch.Tensor:
        drawn.append(step)
        return fixed_noise(step, shape)

    make_sampler(name, nfe=6)(GaussianOracle(MRProcess()), MU, noise=counted)
    stochastic = name in ("mr-sde-1", "mr-sde-2", "consistency", "euler-sde", "posterior")
    prior = [] if name == "fidelity" else [0]  # at temperature 0 nothing is drawn
    assert drawn == (list(range(6)) if stochastic else prior)


@pytest.mark.parametrize("name", SAMPLERS)
def test_at_temperature_0_nothing_is_drawn(name: str) -> None:
    def forbidden(step: int, shape: Sequence[int]) -> torch.Tensor:
        raise AssertionError("noise was drawn")

    oracle = GaussianOracle(MRProcess())
    cold = make_sampler(name, nfe=6, temperature=0.0)(oracle, MU, noise=forbidden)
    silent = make_sampler(name, nfe=6, temperature=1.0)
    assert cold.equal(silent(oracle, MU, noise=lambda step, shape: torch.zeros(shape, dtype=F64)))


@pytest.mark.parametrize("name", SAMPLERS)
def test_nfe_is_the_number_of_network_calls(name: str) -> None:
    for nfe in range(1, 21):
        oracle = GaussianOracle(MRProcess())
        make_sampler(name, nfe=nfe)(oracle, MU, noise=fixed_noise)
        assert oracle.calls == nfe


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("eta", [0.0, 1.0, math.inf])
@pytest.mark.parametrize("grid", ["uniform_log_snr", "uniform_t", "karras"])
@pytest.mark.parametrize("corrector", [False, True])
def test_nfe_of_the_solver_is_the_number_of_network_calls(
    order: int, eta: float, grid: str, corrector: bool
) -> None:
    for nfe in range(1, 21):
        oracle = GaussianOracle(MRProcess())
        sampler = MRSampler(nfe=nfe, order=order, eta=eta, grid=grid, corrector=corrector)
        sampler(oracle, MU, noise=fixed_noise)
        assert oracle.calls == nfe


# An Euler step from t = 1 to 0 is not the prediction.
@pytest.mark.parametrize("name", [n for n in SAMPLERS if not n.startswith(("euler", "heun"))])
def test_one_call_is_the_prediction_at_t_1(name: str) -> None:
    process = MRProcess()
    oracle = GaussianOracle(process)
    temperature = 0.0 if name == "fidelity" else 1.0
    start = process.prior(MU, temperature * fixed_noise(0, MU.shape))
    expected = oracle(start, torch.ones((), dtype=F64), MU).x0
    restored = make_sampler(name, nfe=1)(oracle, MU, noise=fixed_noise)
    assert torch.allclose(restored, expected, atol=1e-14)


def test_zero_temperature_starts_at_the_degraded_image() -> None:
    states = []
    sampler = MRSampler(nfe=2, temperature=0.0)
    keep = lambda step, t, x, prediction: states.append(x)  # noqa: E731
    sampler(GaussianOracle(MRProcess()), MU, noise=fixed_noise, callback=keep)
    assert torch.equal(states[0], MU)


def test_half_precision_images_are_solved_in_float32() -> None:
    restored = MRSampler(nfe=3)(GaussianOracle(MRProcess()), MU.bfloat16(), noise=fixed_noise)
    assert restored.dtype == torch.float32


def test_callback_sees_every_call() -> None:
    seen: list[tuple[int, float]] = []

    def keep(step: int, t: float, x: torch.Tensor, prediction: Prediction) -> None:
        assert x.shape == prediction.x0.shape == MU.shape
        seen.append((step, t))

    sampler = MRSampler(nfe=4)
    sampler(GaussianOracle(MRProcess()), MU, noise=fixed_noise, callback=keep)
    expected = sampler.times(MRProcess())[:-1].tolist()
    assert seen == list(enumerate(expected))


@settings(max_examples=30)
@given(st.lists(st.floats(0.01, 0.99), max_size=8, unique_by=lambda t: round(t, 6)))
def test_any_falling_times_are_a_grid(inner: list[float]) -> None:
    times = torch.tensor([1.0, *sorted(inner, reverse=True), 0.0], dtype=F64)
    oracle = GaussianOracle(MRProcess())
    sampler = MRSampler(nfe=len(times) - 1, order=1, grid=times)
    assert torch.equal(sampler.times(oracle.process), times)
    sampler(oracle, MU, noise=fixed_noise)
    assert oracle.calls == len(times) - 1


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("uniform", "unknown grid"),
        ([1.0, 0.5], "has 3 times"),
        ([1.0, 0.2, 0.1], "falls strictly from 1 to 0"),
        ([0.9, 0.5, 0.0], "falls strictly from 1 to 0"),
        ([1.0, 1.0, 0.0], "falls strictly from 1 to 0"),
        ([1.0, 1.0 - 1e-13, 0.0], "falls strictly from 1 to 0"),
        (torch.eye(3), "times"),
    ],
)
def test_bad_grids_are_refused(grid: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_times(grid, MRProcess(), 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"nfe": 0},
        {"order": 0},
        {"order": 5},
        {"eta": -0.1},
        {"eta": math.nan},
        {"eta": -math.inf},
        {"eta": math.inf, "prediction": "noise"},
        {"eta": 0.1, "prediction": "velocity"},
        {"eta": math.inf, "prediction": "velocity"},
        {"temperature": -1},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        MRSampler(**options)


def test_unknown_options_and_presets_are_refused() -> None:
    with pytest.raises(TypeError):
        MRSampler(steps=5)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="mr-ode-2"):
        make_sampler("dpm", nfe=5)


def test_named_noise_depends_on_seed_name_and_step_alone() -> None:
    pair = named_noise(3, ["a", "b"])(0, (2, 3, 4, 5))
    alone = named_noise(3, ["b"])(0, (1, 3, 4, 5))
    assert torch.equal(pair[1:], alone)
    assert not torch.equal(pair[0], pair[1])
    assert not torch.equal(named_noise(4, ["b"])(0, (1, 3, 4, 5)), alone)
    assert not torch.equal(named_noise(3, ["b"])(1, (1, 3, 4, 5)), alone)
    with pytest.raises(ValueError, match="2 names"):
        named_noise(3, ["a", "b"])(0, (1, 3, 4, 5))


def test_the_solver_of_the_documentation() -> None:
    """It is the ODE of first order."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8").split("## A solver")[1]
    known = {"denoiser": GaussianOracle(MRProcess()), "mu": MU, "noise": fixed_noise}
    exec(text.split("```python")[1].split("```")[0], known)
    sampler = MRSampler(nfe=10, order=1, grid="uniform_t")
    expected = sampler(GaussianOracle(MRProcess()), MU, noise=fixed_noise)
    torch.testing.assert_close(known["restored"], expected, atol=1e-12, rtol=0)
