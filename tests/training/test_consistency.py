"""Consistency training: its times, what it compares, and where it leads; its loss, its progress."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import timer
from torch import Tensor, nn

from mrdiff import GaussianPath, MRDiffusion, MRProcess, MRSampler
from mrdiff.checkpoints.description import CheckpointError
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import BOUNDARY, DATA, VELOCITY, Parameterization
from mrdiff.diffusion.path import Time, expand_like
from mrdiff.diffusion.prediction import Prediction
from mrdiff.metrics import LPIPS, WeightsError
from mrdiff.networks.protocol import Context
from mrdiff.solvers.oracle import GaussianOracle
from mrdiff.solvers.timegrid import start_time
from mrdiff.training import consistency
from mrdiff.training.budget import TRAINER_OPTIONS, Budget, progress
from mrdiff.training.consistency import Consistency, _flow_step
from mrdiff.training.losses import L2, Charbonnier, Perceptual
from tests.diffusion.test_paths import every_path, images
from tests.oracles import PATHS, fitted_slope, oracle_denoiser
from tests.tiny_model import write_tiny_checkpoint
from tests.tiny_training import TinyNetwork, loader, tiny_module, tiny_trainer, tiny_unet
from tests.training.test_budget import Clock

F64 = torch.float64
# As many as tell them apart: without noise, pinned, with a centre, with noise left at t = 0.
FEW = {name: PATHS[name] for name in ("mr", "brownian", "ddbm-vp", "flow", "indi", "rddm")}


@dataclass
class Affine(GaussianOracle):
    """x0 = mu + mean + c(t) (y - alpha mean); unless c is given, where the flow leads from y."""

    slope: Callable[[Tensor], Tensor] | None = None

    def __call__(self, x: Tensor, t: Time, mu: Tensor) -> Prediction:
        alpha, sigma = (expand_like(share, x) for share in self.process.shares(t))
        y = x - self.process.centred(mu, t)
        c = self.std / torch.hypot(alpha * self.std, sigma) if self.slope is None else self.slope(t)
        y0 = self.mean + c * (y - alpha * self.mean)
        return Prediction(mu + y0, (y - alpha * y0) / sigma)


class Recording(nn.Module):
    """Answers with a share of the residual, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.7, dtype=F64))
        self.asked: list[tuple[Tensor, Tensor, Tensor, Context | None]] = []

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: Context | None = None) -> Tensor:
        self.asked.append((x, mu, t, context))
        return self.gain * (x - mu) + expand_like(t, x) * (mu - 0.5)


@dataclass
class Case:
    """A network on a path, images, and the times of the objective for shares that are drawn."""

    path: GaussianPath
    objective: Consistency
    shares: list[float] = field(default_factory=lambda: [0.3, 1.0, 0.9, 0.05, 0.6])
    network: Recording = field(default_factory=Recording)

    def __post_init__(self) -> None:
        self.denoiser = Denoiser(self.network, self.path, BOUNDARY)
        self.objective.begin(self.denoiser)
        self.x0, self.mu, self.eps = images(len(self.shares))
        shares = torch.tensor(self.shares, dtype=F64)
        self.times = self.objective.times(self.denoiser, shares, progress=1.0)
        self.t, self.r, self.start = self.times

    def compared(self, context: Context | None = None) -> tuple[Tensor, Tensor]:
        self.network.asked.clear()
        return self.objective(self.denoiser, self.x0, self.mu, self.times, self.eps, context)


@pytest.fixture
def teach(monkeypatch: pytest.MonkeyPatch) -> Callable[[Denoiser], dict[str, Any]]:
    """The options of an objective that learns from a model which is in no file."""

    def known(model: Denoiser) -> dict[str, Any]:
        monkeypatch.setattr(consistency, "load_model", lambda *_, **__: model)
        return {"target": "teacher", "teacher": "a model"}

    return known


# ---- times -------------------------------------------------------------------------------------


def angle(path: GaussianPath, t: Tensor, std: float) -> Tensor:
    """The flow's clock, atan(sigma / (alpha std))."""
    alpha, sigma = path.shares(t)
    return torch.atan2(sigma, alpha * std)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(sorted(PATHS)),
    st.floats(1e-6, 1),
    st.floats(0, 1),
    st.integers(1, 9),
    st.integers(0, 4),
    st.floats(0.02, 1),
)
def test_t_is_even_on_the_clock_and_r_one_interval_before(
    name: str, share: float, gone: float, first: int, doublings: int, std: float
) -> None:
    path = PATHS[name]
    denoiser = Denoiser(nn.Identity(), path, DATA, data_std=std)
    objective = Consistency(intervals=(first, first * 2**doublings))
    drawn = torch.tensor([1.0, share], dtype=F64)
    t, r, start = objective.times(denoiser, drawn, gone)
    assert (start == start_time(path)).all()
    assert (t > 0).all()
    assert (t <= start).all()
    whole, earliest = angle(path, start, std), angle(path, torch.zeros(2, dtype=F64), std)
    # Times are found to 1e-19, which the noise of ResShift, a power of 0.3, is not steady in.
    off = 1e-5 if name == "resshift" else 1e-10

    def check(found: Tensor, share: Tensor) -> None:
        wanted = torch.maximum(whole * share, earliest)[share > 0]
        torch.testing.assert_close(angle(path, found, std)[share > 0], wanted, rtol=1e-8, atol=off)

    before = drawn - 1 / objective.stage(gone)
    check(t, drawn * torch.tensor([0.5, 1.0]))  # the first starts from the network's own answer
    check(r, before)
    assert (r[before <= 0] == 0).all()


@every_path
def test_times_of_float32_are_those_of_float64(path: GaussianPath) -> None:
    """As runs draw them: nothing is lost on the way, late on the clock or early."""
    denoiser = Denoiser(nn.Identity(), path, DATA)
    drawn = torch.tensor([1e-6, 0.01, 0.126, 0.5, 0.77, 0.999, 1.0])
    narrow, wide = (Consistency().times(denoiser, t, 1.0) for t in (drawn, drawn.double()))
    assert narrow.dtype == torch.float32
    assert (narrow[0] > 0).all()
    torch.testing.assert_close(narrow, wide.float(), rtol=1e-6, atol=0)


def test_the_intervals_double_in_equal_shares_of_the_run() -> None:
    run = [k / 2400 for k in range(2401)]
    numbers = [Consistency(intervals=(3, 24)).stage(gone) for gone in run]
    assert [numbers.count(n) for n in (3, 6, 12, 24)] == [600, 600, 600, 601]
    assert all(a <= b for a, b in pairwise(numbers))
    assert {Consistency(intervals=(5, 5)).stage(gone) for gone in run} == {5}
    assert {Consistency(intervals=(2, 7)).stage(gone) for gone in run} == {2, 4, 7}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"intervals": (0, 4)}, "intervals"),
        ({"intervals": (8, 4)}, "intervals"),
        ({"rollout": 1.0}, "rollout"),
        ({"rollout": -0.1}, "rollout"),
        ({"rollout": math.nan}, "rollout"),
        ({"target": "flow"}, "target must be data or teacher"),
    ],
)
def test_what_cannot_be_trained_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Consistency(**options)


def test_a_network_that_predicts_data_goes_on_as_boundary() -> None:
    for name, target in (("data", BOUNDARY), ("velocity", VELOCITY), ("boundary", BOUNDARY)):
        given = Parameterization.named(name)
        assert Consistency().parameterization(given) == target
    module = MRDiffusion(tiny_unet(), objective=Consistency())
    assert module.parameterization == BOUNDARY
    with pytest.raises(ValueError, match="not noise"):
        MRDiffusion(tiny_unet(), parameterization="noise", objective=Consistency())


# ---- what is compared --------------------------------------------------------------------------


@every_path
def test_a_step_of_the_flow_is_the_samplers(path: GaussianPath) -> None:
    """Of order 1 and eta 0."""
    _, mu, noise = images(2)
    states = []
    MRSampler(nfe=4, order=1)(
        GaussianOracle(path),
        mu,
        noise=lambda step, shape: noise,
        callback=lambda step, t, x, prediction: states.append((t, x, prediction.x0)),
    )
    for (t, x, x0), (r, after, _) in pairwise(states):
        times = (torch.full((2,), time, dtype=F64) for time in (t, r))
        torch.testing.assert_close(_flow_step(path, x, x0, mu, *times), after, rtol=0, atol=1e-12)


@every_path
def test_a_step_of_the_flow_is_off_by_its_square(path: GaussianPath) -> None:
    """Against the exact flow, along which (y - alpha mean) / spread is constant."""
    oracle = GaussianOracle(path)
    _, mu, z = images(3)
    t = torch.tensor([0.3, 0.6, 0.9], dtype=F64)
    counts, errors = [10, 20, 40, 80], []

    def state(at: Tensor) -> Tensor:
        alpha, sigma = (expand_like(share, mu) for share in path.shares(at))
        spread = torch.hypot(alpha * oracle.std, sigma)
        return path.centred(mu, at) + alpha * oracle.mean + spread * z

    for count in counts:
        r = path.t_of_log_snr(path.log_snr(t) + 1 / count)
        x0 = oracle(state(t), t, mu).x0
        moved = _flow_step(path, state(t), x0, mu, t, r)
        errors.append(float((moved - state(r)).abs().max()))
    assert fitted_slope(counts, errors) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("path", FEW.values(), ids=FEW)
def test_the_exact_map_is_alike_at_both_times_only_along_the_teachers_flow(
    path: GaussianPath, teach: Callable[[Denoiser], dict[str, Any]]
) -> None:
    """There what is left is the error of a step; with shared noise they are on two trajectories."""
    flow = oracle_denoiser(Affine(path), "boundary")
    taught = teach(oracle_denoiser(GaussianOracle(path), "velocity"))
    x0, mu, eps = images(3)
    shares = torch.tensor([0.6, 0.8, 1.0], dtype=F64)
    counts = [16, 32, 64, 128]

    def gaps(**options: Any) -> list[float]:
        found = []
        for n in counts:
            objective = Consistency(intervals=(n, n), rollout=0.0, **options)
            objective.begin(flow)
            times = objective.times(flow, shares, 0.0)
            out, target = objective(flow, x0, mu, times, eps)
            found.append(float((out - target).abs().max()))
        return found

    along, shared = gaps(**taught), gaps()
    assert fitted_slope(counts, along) == pytest.approx(2, abs=0.15)
    assert fitted_slope(counts, shared) == pytest.approx(1, abs=0.15)
    assert along[-1] < 0.05 * shared[-1]


@every_path
def test_what_is_compared_without_a_teacher(path: GaussianPath) -> None:
    """x0 at t with x0 at r of the same clean image and noise, which at r = 0 is that image."""
    case = Case(path, Consistency(intervals=(4, 4), rollout=0.0))
    out, target = case.compared()
    assert case.r.gt(0).tolist() == [True, True, True, False, True]
    for i in range(len(case.t)):
        row = slice(i, i + 1)
        mu, x0, eps = case.mu[row], case.x0[row], case.eps[row]

        def seen(at: Tensor, mu: Tensor = mu, x0: Tensor = x0, eps: Tensor = eps) -> Tensor:
            alpha, sigma = path.shares(at)
            x = path.centred(mu, at) + alpha * (x0 - mu) + path.noise * sigma * eps
            return case.denoiser(x, at, mu).x0

        torch.testing.assert_close(out[row], seen(case.t[row]))
        before = seen(case.r[row].clamp(min=1e-6)) if case.r[i] > 0 else x0
        torch.testing.assert_close(target[row], before)


@every_path
def test_states_of_a_share_are_made_of_the_networks_own_first_answer(path: GaussianPath) -> None:
    case = Case(path, Consistency(intervals=(4, 4), rollout=0.5))  # 2 of 5
    own, rest = slice(2), slice(2, None)
    out, target = case.compared()
    earlier, first, last = case.network.asked
    assert [len(asked[0]) for asked in case.network.asked] == [3, 2, 5]

    # What one call of the sampler makes of noise that is moved by an image and half its sides.
    rows, columns = ([(i - 1) % 2 for i in range(2)] for _ in range(2))
    moved = case.eps[own][[1, 0]][:, :, rows][..., columns]
    answer = MRSampler(nfe=1)(case.denoiser, case.mu[own], noise=lambda step, shape: moved)
    # The prior of mean-reverting paths has sigma_max for sigma.
    torch.testing.assert_close(first[0], case.network.asked[-1][0], rtol=0, atol=2e-5)
    given = torch.cat([answer, case.x0[rest]])
    state = path.marginal(given, case.mu, case.t, case.eps)
    torch.testing.assert_close(last[0], state, rtol=0, atol=2e-5)

    torch.testing.assert_close(out, case.denoiser(last[0], case.t, case.mu).x0)
    assert torch.equal(target[own], case.x0[own])
    _, others = Consistency(intervals=(4, 4), rollout=0.0)(
        case.denoiser, case.x0, case.mu, case.times, case.eps
    )
    torch.testing.assert_close(target[rest], others[rest])
    assert torch.equal(earlier[1], case.mu[rest])


@pytest.mark.parametrize("count", [2, 8])
def test_the_first_answer_has_noise_of_its_own(count: int) -> None:
    """Of each image, and of its neighbour: no correlation with that of the state."""
    network = Recording()
    denoiser = Denoiser(network, MRProcess(), BOUNDARY)
    eps = torch.randn(count, 3, 40, 40, generator=torch.Generator().manual_seed(0), dtype=F64)
    mu, objective = torch.full_like(eps, 0.5), Consistency()
    times = objective.times(denoiser, torch.linspace(0.1, 1, count, dtype=F64), 1.0)
    objective(denoiser, mu, mu, times, eps)
    drawn = (network.asked[1][0] - mu[: count // 2]) / MRProcess().sigma_max
    assert float(drawn.std()) == pytest.approx(1, abs=0.05)
    for states in (eps[: count // 2], eps[: count // 2].roll(1, 0)):
        together = (drawn * states).mean(dim=(1, 2, 3))
        assert float(together.abs().max()) < 4 / math.sqrt(eps[0].numel())


@pytest.mark.parametrize("rollout", [0.0, 0.5])
@pytest.mark.parametrize("target", ["data", "teacher"])
def test_the_answer_at_t_alone_is_learnt(
    target: str, rollout: float, teach: Callable[[Denoiser], dict[str, Any]]
) -> None:
    teacher = Denoiser(Recording(), MRProcess(), DATA)
    options = teach(teacher) if target == "teacher" else {}
    case = Case(MRProcess(), Consistency(rollout=rollout, **options))
    out, truth = case.compared()
    assert not truth.requires_grad
    state = case.network.asked[-1][0]
    assert not state.requires_grad
    weight = images(5)[2]
    (found,) = torch.autograd.grad((out * weight).sum(), [case.network.gain])
    alone = case.denoiser(state, case.t, case.mu).x0
    (wanted,) = torch.autograd.grad((alone * weight).sum(), [case.network.gain])
    assert float(found) == pytest.approx(float(wanted), rel=1e-12)
    assert abs(float(found)) > 0.01
    assert teacher.network.gain.grad is None  # type: ignore[union-attr]


@pytest.mark.parametrize("rollout", [0.0, 0.5])
def test_each_image_keeps_its_conditions(
    rollout: float, teach: Callable[[Denoiser], dict[str, Any]]
) -> None:
    """The number of an image is in its pixels, its task and its mask."""
    teacher = Recording()
    taught = teach(Denoiser(teacher, MRProcess(), DATA))
    case = Case(MRProcess(), Consistency(rollout=rollout, **taught))
    number = torch.arange(5, dtype=F64)
    case.mu = expand_like(number, case.mu).expand_as(case.mu)
    context = {"task": number[:, None], "mask": expand_like(number, case.mu)[:, :, :1, :1]}
    case.compared(context)
    asked = case.network.asked + teacher.asked
    assert len(asked) == (4 if rollout else 3)
    for _, mu, t, seen in asked:
        assert seen is not None
        which = mu[:, 0, 0, 0]
        assert torch.equal(seen["task"][:, 0], which)
        assert torch.equal(seen["mask"][:, 0, 0, 0], which)
        known = torch.stack([case.t, case.r.clamp(min=1e-6), case.start])[:, which.long()]
        assert any(torch.equal(t, row) for row in known)


def test_the_state_before_is_where_a_trained_model_leads(tmp_path: Path) -> None:
    """It is read from its file before a fit; of its first interval x0 is its own."""
    file = write_tiny_checkpoint(tmp_path / "teacher.ckpt")
    objective = Consistency(rollout=0.0, target="teacher", teacher=str(file))
    module = MRDiffusion(tiny_unet().double(), objective=objective)
    x0, mu, eps = (torch.rand(3, 3, 16, 16, dtype=F64) for _ in range(3))
    times = objective.times(module.denoiser, torch.tensor([0.05, 0.4, 1.0], dtype=F64), 1.0)
    objective.begin(module.denoiser)
    (teacher,) = objective._teachers
    teacher.double()
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.training
    out, target = objective(module.denoiser, x0, mu, times, eps)
    t, r, _ = times
    x = module.process.marginal(x0, mu, t, eps)
    said = teacher(x, t, mu)
    # The flow keeps x0 and eps: what they make of r.
    state = module.process.marginal(said.x0, mu, r, said.eps)
    with torch.no_grad():
        seen = module.denoiser(state, r.clamp(min=1e-6), mu).x0
    torch.testing.assert_close(target[1:], seen[1:])
    torch.testing.assert_close(target[0], said.x0[0])
    assert out.requires_grad

    other = MRDiffusion(tiny_unet(), PATHS["flow"], objective=objective)
    with pytest.raises(
        CheckpointError, match=r"model\.process of this run differs .*teacher\.ckpt"
    ):
        objective.begin(other.denoiser)
    with pytest.raises(CheckpointError, match="needs its checkpoint"):
        Consistency(target="teacher").begin(module.denoiser)
    objective.end()
    assert not objective._teachers


# ---- where it leads ----------------------------------------------------------------------------


def learnt(path: GaussianPath, n: int, *, std: float) -> float:
    """The best c of the start, when the best of each time has been learnt from the time before.

    u and eps at plus and minus one deviation have the moments of Gaussians that the loss asks for.
    """
    oracle, known = Affine(path), dict[float, Tensor]()
    denoiser = oracle_denoiser(oracle, "data", data_std=std)
    objective = Consistency(intervals=(n, n), rollout=0.0)
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=F64)
    u, eps = corners.T.reshape(2, 1, 1, 2, 2)
    mu = torch.full_like(u, 0.4)
    x0 = mu + oracle.mean + oracle.std * u

    def c_of(t: Tensor) -> Tensor:
        return known[min(known, key=lambda time: abs(time - float(t)))]

    oracle.slope = c_of
    for k in range(1, n + 1):
        times = objective.times(denoiser, torch.tensor([k / n], dtype=F64), 0.0)
        now, gradients = float(times[0]), []
        for guess in (0.0, 1.0):  # the gradient is linear in c
            known[now] = torch.tensor(guess, dtype=F64, requires_grad=True)
            loss = L2()(*objective(denoiser, x0, mu, times, eps))
            gradients.append(torch.autograd.grad(loss, known[now])[0])
        known[now] = gradients[0] / (gradients[0] - gradients[1])
    return float(known[now])


@pytest.mark.parametrize(("name", "std"), [("mr", 0.4), *((name, 0.15) for name in FEW)])
def test_what_is_learnt_tends_to_the_map_of_the_flow(name: str, std: float) -> None:
    """Of Gaussian residuals, whatever deviation is assumed of them, with order 1 in 1 / N.

    Each time is a regression on the time before: with the vector v = (alpha std, sigma) the best
    c |v| loses a cosine of the angle between the two at each.
    """
    path = FEW[name]
    oracle, start = Affine(path), torch.tensor(start_time(path), dtype=F64)
    alpha, sigma = path.shares(start)
    exact = oracle.std / math.hypot(alpha * oracle.std, path.noise * sigma)
    counts = [8, 16, 32]
    found = [learnt(path, n, std=std) for n in counts]
    if path.noise:
        errors = [1 - c / exact for c in found]
        assert fitted_slope(counts, errors) == pytest.approx(1, abs=0.1)
        assert 0 < errors[-1] < 0.08
    else:  # the way back is known exactly
        assert found == pytest.approx([exact] * len(counts), rel=1e-9)
    if std == oracle.std and path.noise:  # N equal angles
        step = [float(angle(path, start, std)) / n for n in counts]
        product = [exact * math.cos(a) ** n for a, n in zip(step, counts, strict=True)]
        assert found == pytest.approx(product, rel=1e-6)


# ---- the loss ----------------------------------------------------------------------------------


@pytest.fixture
def without_lpips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MRDIFF_LPIPS_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def slow_gradients(image: list[list[float]]) -> float:
    """The mean absolute difference of neighbours, below and beside, and that of its halvings."""
    total = 0.0
    for _ in range(4):
        height, width = len(image), len(image[0])
        if min(height, width) < 2:
            break
        down = [abs(image[i + 1][j] - image[i][j]) for i in range(height - 1) for j in range(width)]
        right = [
            abs(image[i][j + 1] - image[i][j]) for i in range(height) for j in range(width - 1)
        ]
        total += sum(down) / len(down) + sum(right) / len(right)
        image = [
            [
                sum(image[2 * i + a][2 * j + b] for a in (0, 1) for b in (0, 1)) / 4
                for j in range(width // 2)
            ]
            for i in range(height // 2)
        ]
    return total


@pytest.mark.usefixtures("without_lpips")
@pytest.mark.parametrize("size", [(20, 17), (16, 16), (5, 40), (1, 9)])
def test_the_loss_without_weights_is_its_formula(size: tuple[int, int]) -> None:
    """One channel at a time, as its means are over equal numbers of pixels."""
    generator = torch.Generator().manual_seed(1)
    out, target = torch.rand(2, 2, 3, *size, generator=generator, dtype=F64)
    loss = Perceptual(epsilon=0.07, weight=0.3)
    planes = (out - target).flatten(0, 1).tolist()
    pixels = [pixel for plane in planes for row in plane for pixel in row]
    smooth = sum(math.sqrt(d * d + 0.07**2) - 0.07 for d in pixels) / len(pixels)
    seen = sum(map(slow_gradients, planes)) / len(planes)
    assert float(loss(out, target)) == pytest.approx(smooth + 0.3 * seen, rel=1e-12)
    assert float(loss(out, out)) == 0
    plain = Perceptual(epsilon=0.07, weight=0.0)
    assert float(plain(out, target)) == pytest.approx(smooth, rel=1e-12)


def test_bad_losses_are_refused(tmp_path: Path) -> None:
    for weight in (-0.1, math.nan):
        with pytest.raises(ValueError, match="weight must not be negative"):
            Perceptual(weight=weight)
    with pytest.raises(ValueError, match="epsilon must be positive"):
        Perceptual(epsilon=0)
    absent = str(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="no such file"):
        Perceptual(lpips_weights=absent)
    Perceptual(weight=0.0, lpips_weights=absent)  # which asks for none


@pytest.fixture
def features(shared: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The file of LPIPS, which the environment names."""
    monkeypatch.setenv("MRDIFF_LPIPS_WEIGHTS", str(shared / "lpips" / "alexnet-features.pth"))
    return str(LPIPS.weights.find())


def test_lpips_is_a_part_of_the_loss_and_none_of_the_model(features: str) -> None:
    loss, network = Perceptual(weight=0.3), LPIPS.from_file(features)
    assert not loss.state_dict()
    assert not [*loss.parameters()]
    assert not [*loss.buffers()]
    generator = torch.Generator().manual_seed(0)
    out, target = torch.rand(2, 2, 3, 40, 40, generator=generator)
    out.requires_grad_()
    smooth = Charbonnier(epsilon=0.05)(out, target)
    wanted = smooth + 0.3 * network(out, target).mean()
    torch.testing.assert_close(loss(out, target), wanted)
    assert float(loss(out, out).detach()) == pytest.approx(0, abs=1e-6)
    (whole,) = torch.autograd.grad(loss(out, target), [out])
    (part,) = torch.autograd.grad(smooth, [out])
    assert (whole - part).abs().max() > 0.1 * part.abs().max()
    for small in (out[..., :20, :], out[:, :2]):  # nothing that it could see
        cut = target[:, : small.shape[1], : small.shape[2]]
        torch.testing.assert_close(
            loss(small, cut),
            Charbonnier(epsilon=0.05)(small, cut) + 0.3 * _gradients(small - cut),
        )


def _gradients(difference: Tensor) -> Tensor:
    planes = difference.detach().flatten(0, 1).tolist()
    return torch.tensor(sum(map(slow_gradients, planes)) / len(planes))


# ---- progress ----------------------------------------------------------------------------------


class Keep(Callback):
    """The progress at each step, and that which the objective was told."""

    def __init__(self, *, stop: int | None = None) -> None:
        self.seen: list[float] = []
        self.stop = stop

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        self.seen.append(progress(trainer))

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop |= len(self.seen) == self.stop


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"max_steps": 5}, [0, 0.2, 0.4, 0.6, 0.8]),
        ({"max_epochs": 2}, [0, 0.25, 0.5, 0.75]),
        ({"max_epochs": 2, "accumulate_grad_batches": 2}, [0, 0, 0.5, 0.5]),
        ({"max_epochs": -1}, [0, 0, 0, 0, 0, 0]),  # no end
    ],
)
def test_progress_by_steps(options: dict[str, Any], seen: list[float], tmp_path: Path) -> None:
    keep = Keep(stop=len(seen))
    options = {"max_epochs": None, "max_steps": -1, **options}
    tiny_trainer(tmp_path, keep, **options).fit(tiny_module(), loader())
    assert keep.seen == seen


def test_progress_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first step to the end of the minutes, whatever steps are made of."""
    clock, keep = Clock(step=12.0), Keep()
    monkeypatch.setattr(timer, "time", SimpleNamespace(monotonic=lambda: clock.now))
    run = tiny_trainer(tmp_path, Budget(minutes=1), clock, keep, **TRAINER_OPTIONS)
    run.fit(tiny_module(), loader())
    assert keep.seen == pytest.approx([0, 0, 0.25, 0.5, 0.75])


def test_a_run_goes_through_the_stages_and_validates_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[int] = []
    counted = Consistency.stage
    keep = lambda self, gone: stages.append(counted(self, gone)) or stages[-1]  # noqa: E731
    monkeypatch.setattr(Consistency, "stage", keep)
    module = MRDiffusion(TinyNetwork(), objective=Consistency(intervals=(2, 8)))
    run = tiny_trainer(tmp_path, max_epochs=3, check_val_every_n_epoch=3)
    run.fit(module, loader(), loader(count=2))
    assert stages == [2, 2, 4, 4, 8, 8, 8]
