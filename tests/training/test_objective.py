"""What the loss compares: the optimal step of IR-SDE against its formula, written out slowly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mrdiff import MRDiffusion, MRProcess, TabulatedTheta
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.diffusion.path import expand_like
from mrdiff.training.losses import L1, L2
from mrdiff.training.objective import Objective, OptimalStep, ScaledTarget
from tests.oracles import SCHEDULES
from tests.tiny_training import TinyNetwork, loader, tiny_trainer

Kind = Literal["cosine", "linear", "constant"]


class Answer(nn.Module):
    """A network that always says the same."""

    def __init__(self, out: Tensor) -> None:
        super().__init__()
        self.out = nn.Parameter(out)

    def forward(self, x: Any, mu: Any, t: Any, context: Any = None) -> Tensor:
        return self.out


def drawn(seed: int, batch: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x0, mu, the noise, and what a network believes it to be."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, batch, 3, 4, 5, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, batch, 3, 4, 5, generator=generator, dtype=torch.float64)
    return images[0], images[1], noise[0], noise[1]


def answering(process: MRProcess, name: str, y: Tensor, t: Tensor, eps: Tensor) -> Denoiser:
    """A denoiser of any parameterization that believes in ``eps``."""
    target = Parameterization.named(name)
    a, b = (expand_like(number, y) for number in target.scaled(process, t, 1.0)[:2])
    y0 = (y - expand_like(process.sigma(t), y) * eps) / expand_like(process.alpha(t), y)
    scale = torch.sqrt(a**2 * 0.1**2 + b**2)
    return Denoiser(Answer((a * y0 + b * eps) / scale), process, target, data_std=0.1)


def tables(kind: Kind, steps: int, eps: float) -> tuple[Tensor, Tensor, float]:
    """theta_t and their sums for t = 0..steps, and dt, as IR-SDE's code has them."""
    if kind == "cosine":
        grid = [
            math.cos((i / (steps + 2) + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 3)
        ]
        theta = torch.tensor([1 - value / grid[0] for value in grid[1:-1]], dtype=torch.float64)
    elif kind == "linear":
        theta = torch.linspace(1e-4, 2e-2, steps + 1, dtype=torch.float64)
    else:
        theta = torch.ones(steps + 1, dtype=torch.float64)
    total = theta.cumsum(dim=0) - theta[0]
    return theta, total, float(-math.log(eps) / total[-1])


def official(
    kind: Kind, steps: int, k: int, sigma_max: float, images: tuple[Tensor, Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """(expected, optimal x_{k-1}) by the formulas of the paper, on raw tables."""
    x0, mu, eps, network = images
    theta, total, dt = tables(kind, steps, 0.005)
    a, b, c = (torch.exp(-s * dt) for s in (theta[k], total[k], total[k - 1]))
    sigma_bar = sigma_max * torch.sqrt(1 - torch.exp(-2 * total[k] * dt))
    x = mu + b * (x0 - mu) + sigma_bar * eps
    score = -network / sigma_bar
    squared = 2 * sigma_max**2 * theta[k]
    expected = x - (theta[k] * (mu - x) - squared * score) * dt
    optimum = a * (1 - c**2) / (1 - b**2) * (x - mu) + c * (1 - a**2) / (1 - b**2) * (x0 - mu) + mu
    return expected, optimum


@pytest.mark.parametrize("name", ["data", "noise", "velocity"])
@pytest.mark.parametrize(
    ("kind", "steps", "sigma_max"), [("cosine", 100, 10), ("linear", 20, 50), ("constant", 7, 50)]
)
def test_the_optimal_step_is_the_official_one(
    kind: Kind, steps: int, sigma_max: int, name: str
) -> None:
    process = MRProcess(TabulatedTheta.irsde(kind, steps=steps), sigma_max=sigma_max / 255)
    for k in range(1, steps + 1):
        images = x0, mu, eps, network = drawn(k)
        t = torch.tensor([k / steps], dtype=torch.float64)
        y = process.marginal(x0, mu, t, eps) - mu
        denoiser = answering(process, name, y, t, network)
        found = OptimalStep(steps)(denoiser, x0, mu, t, eps)
        wanted = official(kind, steps, k, sigma_max / 255, images)
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours.detach(), theirs - mu, rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(
            L1()(*found), (wanted[0] - wanted[1]).abs().mean(), rtol=1e-9, atol=0
        )


def test_float32_keeps_the_difference() -> None:
    """At the first step it is a thousandth of what it is the difference of."""
    process = MRProcess(TabulatedTheta.irsde(), sigma_max=10 / 255)
    for k in (1, 2, 10, 100):
        images = x0, mu, eps, network = drawn(k)
        t = torch.tensor([k / 100])
        denoiser = Denoiser(Answer(network.float()), process, Parameterization.named("noise"))
        found = L1()(*OptimalStep(100)(denoiser, x0.float(), mu.float(), t, eps.float()))
        expected, optimum = official("cosine", 100, k, 10 / 255, images)
        assert float(found.detach()) == pytest.approx(
            float((expected - optimum).abs().mean()), rel=1e-3
        )


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(t=st.floats(0.02, 1.0), steps=st.integers(1, 200), seed=st.integers(0, 99))
def test_the_optimum_is_the_mean_of_the_state_before(
    schedule: str, t: float, steps: int, seed: int
) -> None:
    """Of y_s given y_t and y0, from the precisions of both neighbours, at any time."""
    process = MRProcess(SCHEDULES[schedule])
    x0, mu, eps, network = drawn(seed)
    now = torch.tensor([t], dtype=torch.float64)
    before = (now - 1 / steps).clamp(min=0)
    denoiser = Denoiser(Answer(network), process, Parameterization.named("noise"))
    _, optimum = OptimalStep(steps)(denoiser, x0, mu, now, eps)

    alpha_t, alpha_s, sigma_s = process.alpha(now), process.alpha(before), process.sigma(before)
    decay = alpha_t / alpha_s
    variance = process.sigma_max**2 * (1 - decay**2)  # of y_t given y_s
    y = process.marginal(x0, mu, now, eps) - mu
    # (y_t decay / variance + m_s / sigma_s²) / (decay² / variance + 1 / sigma_s²)
    mean = (y * decay * sigma_s**2 + alpha_s * (x0 - mu) * variance) / (
        decay**2 * sigma_s**2 + variance
    )
    torch.testing.assert_close(optimum, mean, rtol=1e-7, atol=1e-9)


def best_noise(steps: int, times: Tensor) -> tuple[Tensor, Tensor]:
    """(the noise at which the gradient of the squared error is 0, the true one)."""
    process = MRProcess(TabulatedTheta.irsde(steps=steps))
    x0, mu, eps, _ = drawn(0, batch=len(times))
    gradients = []
    for answer in (torch.zeros_like(eps), torch.ones_like(eps)):
        denoiser = Denoiser(Answer(answer), process, Parameterization.named("noise"))
        loss = L2()(*OptimalStep(steps)(denoiser, x0, mu, times, eps))
        gradients.append(torch.autograd.grad(loss, [*denoiser.parameters()])[0])
    zero, one = gradients  # the gradient is linear in the answer
    return zero / (zero - one), eps


def test_the_best_network_predicts_the_noise() -> None:
    times = torch.tensor([0.05, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    off = []
    for steps in (100, 200, 400):
        best, eps = best_noise(steps, times)
        off.append(float((best - eps).abs().max()))
    assert off[0] < 0.15
    # What is left is the error of an Euler step: the shorter the steps, the smaller.
    assert off[1] < 0.6 * off[0]
    assert off[2] < 0.6 * off[1]


def test_a_step_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1"):
        OptimalStep(0)


class Watching(TinyNetwork):
    """Keeps the times it is asked at."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def forward(
        self, x: Tensor, mu: Tensor, t: Tensor, context: dict[str, Tensor] | None = None
    ) -> Tensor:
        self.times += t.tolist()
        return super().forward(x, mu, t, context)


@pytest.mark.parametrize("objective", [None, ScaledTarget(), OptimalStep(10)])
def test_a_model_trains_at_discrete_times(objective: Objective | None, tmp_path: Path) -> None:
    network = Watching()
    module = MRDiffusion(network, parameterization="noise", objective=objective, time_steps=10)
    tiny_trainer(tmp_path, max_epochs=4).fit(module, loader())
    assert len(network.times) == 32
    assert {round(10 * t) for t in network.times} <= set(range(1, 11))
    assert all(abs(10 * t - round(10 * t)) < 1e-6 for t in network.times)
    with pytest.raises(ValueError, match="time_steps"):
        MRDiffusion(TinyNetwork(), time_steps=0)


def test_the_objective_of_a_run_is_in_its_validation(tmp_path: Path) -> None:
    """The loss that is logged is that of the objective."""
    losses = []
    for objective in (None, OptimalStep(100)):
        module = MRDiffusion(TinyNetwork(), parameterization="noise", objective=objective)
        (logged,) = tiny_trainer(tmp_path).validate(module, loader(), verbose=False)
        losses.append(logged["val/loss"])
    assert losses[0] > 0.5  # of a noise of size 1
    assert losses[1] < 0.1  # of a step
