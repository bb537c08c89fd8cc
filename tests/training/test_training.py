"""Losses, denoiser targets, the LightningModule, its schedule and its checkpoints."""

from __future__ import annotations

import copy
import functools
import itertools
import threading
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mrdiff import ConstantTheta, MRDiffusion, MRProcess, MRSampler
from mrdiff.checkpoints.description import CheckpointError
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.solvers.gridfile import write_grid
from mrdiff.solvers.noise import keyed_generator
from mrdiff.training.losses import L1, L2, Charbonnier, stratified_times
from mrdiff.training.transfer import init_from
from mrdiff.training.warmup import WarmupCosine
from tests.tiny_training import Pairs, tiny_unet, trained, trainer

NAMES = ["data", "noise", "velocity"]


@given(st.integers(1, 64), st.integers(0, 1000))
def test_times_are_stratified(batch: int, seed: int) -> None:
    t = stratified_times(batch, torch.Generator().manual_seed(seed))
    assert (t > 0).all()
    assert (t <= 1).all()
    # One in each of the equal parts, up to float32 rounding at the edges.
    parts = (t.double() * batch - 1e-6).floor().clamp(min=0)
    assert parts.sort().values.tolist() == list(range(batch))


def test_each_time_alone_is_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.stack([stratified_times(4, generator)[0] for _ in range(4000)])
    assert float(first.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(first.var()) == pytest.approx(1 / 12, abs=0.005)


@pytest.mark.parametrize("power", [0.5, 2.0, 3.0])
def test_late_times_are_as_likely_as_the_power_says(power: float) -> None:
    t = stratified_times(4000, torch.Generator().manual_seed(0), power=power)
    for below in (0.2, 0.5, 0.8):
        assert float((t <= below).float().mean()) == pytest.approx(below**power, abs=2e-3)
    with pytest.raises(ValueError, match="time_power"):
        MRDiffusion(tiny_unet(), time_power=0.0)


@pytest.mark.parametrize(("batch", "steps"), [(1, 100), (4, 100), (8, 5), (16, 3)])
def test_each_discrete_time_is_equally_likely(
    batch: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly: over an even lattice of what can be drawn, each k comes up equally often."""
    found: list[int] = []
    for n in range(steps):
        jitter = torch.full((batch,), (n + 0.5) / steps, dtype=torch.float64)
        monkeypatch.setattr(
            "mrdiff.training.losses.torch.rand", lambda *_, value=jitter, **__: value
        )
        found += (stratified_times(batch, steps=steps) * steps).round().int().tolist()
    assert sorted(found) == sorted(batch * [*range(1, steps + 1)])


def test_discrete_times_of_one_image_are_uniform_and_those_of_a_batch_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([stratified_times(4, generator, steps=20) for _ in range(5000)])
    k = drawn.double() * 20
    assert (k - k.round()).abs().max() < 1e-5
    counts = k[:, 0].round().long().bincount(minlength=21)
    assert counts[0] == 0
    assert float(((counts[1:] - 250) ** 2 / 250).sum()) < 43.8  # chi squared, 19 degrees: 0.1%
    # One in each quarter: 1-5, 6-10, 11-15, 16-20.
    assert ((k.round() - 1) // 5).sort(dim=1).values.eq(torch.arange(4)).all()


def test_losses_against_their_definitions() -> None:
    out, target = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.0, 1.0, 0.5])
    assert float(L1()(out, target)) == pytest.approx(4 / 3)
    assert float(L2()(out, target)) == pytest.approx(10 / 3)
    small, large = Charbonnier(epsilon=1e-6), Charbonnier(epsilon=1e3)
    assert float(small(out, target)) == pytest.approx(4 / 3, rel=1e-5)
    assert float(large(out.double(), target.double())) == pytest.approx(10 / 3 / 2e3, rel=1e-4)
    with pytest.raises(ValueError, match="epsilon"):
        Charbonnier(epsilon=0)
    with pytest.raises(ValueError, match="balance"):
        Charbonnier(balance=-0.5)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_a_balanced_loss_weighs_an_image_by_its_degradation(balance: float) -> None:
    def images(seed: int) -> Tensor:
        return torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).double()

    target = images(0) + 0.5  # errors far below epsilon: d² / (2 epsilon)
    out, loss = target + 1e-3 * images(1), Charbonnier(epsilon=10, balance=balance)
    one, ten = loss(out, target), loss(10 * out, 10 * target)
    assert float(ten / one) == pytest.approx(100 ** (1 - balance), rel=1e-2)
    # Each image by its own size, and one that is hardly degraded not without bound.
    both = loss(torch.cat([out, 10 * out]), torch.cat([target, 10 * target]))
    assert float(both) == pytest.approx(float(one + ten) / 2)
    fine = Charbonnier(epsilon=1e-9, balance=balance)
    assert float(fine(out - target, 0 * target)) == pytest.approx(
        float((out - target).abs().mean()) / 0.3**balance, rel=1e-3
    )


@pytest.mark.parametrize("name", NAMES)
@given(t=st.floats(0.02, 1.0), seed=st.integers(0, 100))
def test_a_perfect_network_is_a_perfect_denoiser(name: str, t: float, seed: int) -> None:
    """The scaled target, put back through the denoiser, gives x0 and eps exactly."""
    generator = torch.Generator().manual_seed(seed)
    x0, mu, eps = torch.rand(3, 1, 3, 4, 4, generator=generator, dtype=torch.float64)
    times = torch.tensor([t], dtype=torch.float64)
    process = MRProcess()

    class Perfect(nn.Module):
        def forward(self, x: Any, mu: Any, t: Any, context: Any = None) -> torch.Tensor:
            return denoiser.scaled_target(x0, mu, t, eps)

    denoiser = Denoiser(Perfect(), process, Parameterization.named(name))
    prediction = denoiser(process.marginal(x0, mu, times, eps), times, mu)
    assert torch.allclose(prediction.x0, x0, atol=1e-7)
    assert torch.allclose(prediction.eps, eps, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_targets_have_unit_size(name: str) -> None:
    denoiser = Denoiser(nn.Identity(), MRProcess(), Parameterization.named(name), data_std=0.1)
    mu = torch.rand(64, 3, 16, 16)
    x0 = mu + 0.1 * torch.randn_like(mu)
    t = stratified_times(64, torch.Generator().manual_seed(0))
    target = denoiser.scaled_target(x0, mu, t, torch.randn_like(mu))
    assert target.std(dim=(1, 2, 3)) == pytest.approx(torch.ones(64), abs=0.1)


def test_unknown_parameterization_is_refused() -> None:
    with pytest.raises(ValueError, match="data, noise, velocity, preconditioned"):
        MRDiffusion(tiny_unet(), parameterization="score")  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", [L1(), L2(), Charbonnier()])
@pytest.mark.parametrize("name", NAMES)
def test_training_lowers_the_loss(name: Any, loss: nn.Module, tmp_path: Path) -> None:
    losses: list[float] = []

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *rest: Any) -> None:
            losses.append(float(outputs["loss"]))

    pl.seed_everything(0, verbose=False)
    fit = trainer(tmp_path, 80)
    fit.callbacks.append(Keep())
    module = MRDiffusion(
        tiny_unet(),
        parameterization=name,
        loss=loss,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=5e-3),
        lr_scheduler=lambda optimizer: WarmupCosine(optimizer, warmup=5),
    )
    fit.fit(module, DataLoader(Pairs(), batch_size=8))
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])


def test_warmup_cosine_rises_and_falls() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = WarmupCosine(optimizer, warmup=10, total=110, final=0.1)
    rates = []
    for _ in range(121):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(2 / 11)
    assert rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(2 * 0.55)
    assert rates[110:] == pytest.approx([0.2] * 11)
    assert all(a < b for a, b in itertools.pairwise(rates[:11]))
    assert all(a > b for a, b in itertools.pairwise(rates[10:111]))


def test_a_copy_does_not_take_what_makes_the_optimizer_along() -> None:
    """Behind a configured one stands the command line, with locks that cannot be copied."""
    lock = threading.Lock()

    def made(parameters: Any, lock: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1)

    module = MRDiffusion(tiny_unet(), optimizer=functools.partial(made, lock=lock))
    assert copy.deepcopy(module).network is not module.network


def test_the_schedule_takes_its_length_from_the_trainer(tmp_path: Path) -> None:
    module, _ = trained(tmp_path, steps=12)
    assert module.trainer.lr_scheduler_configs[0].scheduler.total == 12


def test_training_is_repeatable_and_leaves_the_noise_to_seed_and_step(tmp_path: Path) -> None:
    first, _ = trained(tmp_path / "a", steps=3)
    torch.rand(100)  # the global generator has no say in the training noise
    second, _ = trained(tmp_path / "b", steps=3)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_training_noise_differs_between_seeds_ranks_and_steps() -> None:
    def drawn(*key: int) -> list[float]:
        return torch.rand(4, generator=keyed_generator(torch.device("cpu"), *key)).tolist()

    assert drawn(0, 0, 0) == drawn(0, 0, 0)
    assert len({tuple(drawn(*key)) for key in itertools.product(range(3), repeat=3)}) == 27


def test_every_step_has_noise_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[tuple[int, ...]] = []

    def kept(device: torch.device, *key: int) -> torch.Generator:
        keys.append(key)
        return keyed_generator(device, *key)

    monkeypatch.setattr("mrdiff.training.step.keyed_generator", kept)
    trained(tmp_path, steps=5)
    assert keys == [(0, 0, step) for step in range(5)]  # seed, rank, step


def test_a_grid_file_of_another_process_is_no_sampler(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    write_grid(path, {2: [1.0, 0.5, 0.0]}, MRProcess(ConstantTheta()), made={})
    with pytest.raises(
        ValueError, match=r"grid\.yaml: its times are of MRProcess\(schedule=Constant"
    ):
        MRDiffusion(tiny_unet(), sampler=MRSampler(nfe=2, grid=path))


def test_predict_restores_by_name(tmp_path: Path) -> None:
    module, _ = trained(tmp_path, steps=5, sampler=MRSampler(nfe=2))
    for parameter in module.network.parameters():  # so that the noise matters
        parameter.data.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    predict = trainer(tmp_path, 1).predict
    whole = predict(module, DataLoader(Pairs(), batch_size=8))
    single = predict(module, DataLoader(Pairs(), batch_size=1))
    assert whole is not None
    assert single is not None
    assert whole[0]["name"] == [f"pair{i}" for i in range(8)]  # type: ignore[index]
    for i in range(8):
        restored = single[i]["restored"][0]  # type: ignore[index]
        assert torch.allclose(whole[0]["restored"][i], restored, atol=1e-5)  # type: ignore[index]
        assert 0 <= restored.min() <= restored.max() <= 1


def test_a_resumed_schedule_may_be_longer() -> None:
    def schedule(total: int) -> WarmupCosine:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        return WarmupCosine(optimizer, warmup=2, total=total)

    short, longer = schedule(10), schedule(100)
    for _ in range(9):
        short.optimizer.step()
        short.step()
    longer.load_state_dict(short.state_dict())
    assert (longer.last_epoch, longer.total) == (9, 100)
    longer.optimizer.step()
    longer.step()
    assert longer.get_last_lr()[0] > 0.9


def test_init_from_takes_weights_and_refuses_another_meaning(tmp_path: Path) -> None:
    module, path = trained(tmp_path, steps=5)
    new = MRDiffusion(tiny_unet())
    init_from(new.denoiser, path)
    for a, b in zip(module.network.parameters(), new.network.parameters(), strict=True):
        assert torch.equal(a, b)
    others = {
        "parameterization": MRDiffusion(tiny_unet(), parameterization="noise"),
        "process": MRDiffusion(tiny_unet(), MRProcess(sigma_max=0.3)),
        "data_std": MRDiffusion(tiny_unet(), data_std=0.5),
    }
    for message, other in others.items():
        with pytest.raises(CheckpointError, match=message):
            init_from(other.denoiser, path)
