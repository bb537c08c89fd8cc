"""Resumed runs: state of the checkpoint, options of the run; and losses that have weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim import lr_scheduler as schedules

from callbacks import EMA
from mrdiff import MRDiffusion
from mrdiff.checkpoints.description import CheckpointError
from mrdiff.diffusion.denoiser import NetworkError
from mrdiff.training import Muon, WarmupCosine
from mrdiff.training.checks import TrainingError
from mrdiff.training.resuming import Resumption
from tests.tiny_training import TinyNetwork, loader, tiny_trainer

Make = Callable[[Optimizer], Any]
SCHEDULES: list[Make] = [
    lambda o: WarmupCosine(o, warmup=3, total=12),
    lambda o: WarmupCosine(o, warmup=0, total=30),
    lambda o: schedules.CosineAnnealingLR(o, 9),
    lambda o: schedules.CosineAnnealingWarmRestarts(o, 4, 2),
    lambda o: schedules.StepLR(o, 3, 0.5),
    lambda o: schedules.ExponentialLR(o, 0.9),
    lambda o: schedules.LambdaLR(o, lambda step: 1 / (1 + step)),
    lambda o: schedules.OneCycleLR(o, 0.3, 50),
    lambda o: schedules.ChainedScheduler([schedules.ConstantLR(o), schedules.StepLR(o, 5)]),
    lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o), schedules.ExponentialLR(o, 0.8)], [6]
    ),
]


def checkpoint(optimizer: Optimizer, scheduler: Any, steps: int) -> dict[str, Any]:
    return {
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [scheduler.state_dict()],
        "callbacks": {},
        "global_step": steps,
    }


def walked(lr: float, make: Make, steps: int) -> tuple[Optimizer, Any, list[float]]:
    """An optimizer after steps of its schedule, and its rates on the way."""
    optimizer = SGD([nn.Parameter(torch.ones(2))], lr=lr, momentum=0.9)
    optimizer.param_groups[0]["initial_lr"] = lr
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return optimizer, scheduler, rates


@given(
    before=st.sampled_from(SCHEDULES),
    after=st.sampled_from(SCHEDULES),
    steps=st.integers(0, 20),
    rates=st.tuples(st.sampled_from([0.1, 0.4]), st.sampled_from([0.1, 1e-3])),
)
def test_the_rate_is_that_of_a_run_which_had_the_schedule_from_the_start(
    before: Make, after: Make, steps: int, rates: tuple[float, float]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its own schedules
        old, old_schedule, _ = walked(rates[0], before, steps)
        saved = checkpoint(old, old_schedule, steps)
        new, new_schedule, _ = walked(rates[1], after, 0)
        resumption = Resumption(saved, ours=None, theirs=None)
        new.load_state_dict(resumption.options(new_schedule, new, saved["optimizer_states"][0]))
        found = []
        for _ in range(5):
            found.append(new.param_groups[0]["lr"])
            new.step()
            new_schedule.step()
        _, _, expected = walked(rates[1], after, steps + 5)
    assert found == expected[steps:]
    assert saved["lr_schedulers"] == []  # Lightning loads nothing over it


def module(
    optimizer: Any = lambda p: SGD(p, lr=0.05, momentum=0.9),
    scheduler: Any = lambda o: WarmupCosine(o, warmup=2, total=8),
    **options: Any,
) -> MRDiffusion:
    torch.manual_seed(0)
    return MRDiffusion(TinyNetwork(), optimizer=optimizer, lr_scheduler=scheduler, **options)


def fit(folder: Path, model: MRDiffusion, *callbacks: Any, steps: int, resume: bool = False) -> Any:
    """Train to ``steps``, with a validation every second one, and save."""
    trainer = tiny_trainer(
        folder, *callbacks, max_epochs=-1, max_steps=steps, val_check_interval=2,
        check_val_every_n_epoch=None,
    )  # fmt: skip
    path = folder / "run.ckpt" if resume else None
    trainer.fit(model, loader(), loader(), ckpt_path=path, weights_only=True)
    trainer.save_checkpoint(folder / "run.ckpt")
    return torch.load(folder / "run.ckpt", weights_only=True)


def test_every_option_of_a_resumed_run_is_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tmp_path, module(), EMA(decay=0.5), steps=3)
    fit(tmp_path, module(), EMA(decay=0.5), steps=4, resume=True)
    assert "note" not in capsys.readouterr().err  # nothing has changed
    slower = module(lambda p: SGD(p, lr=0.01, momentum=0.5, weight_decay=0.1))
    average = EMA(decay=0.25)
    content = fit(tmp_path, slower, average, steps=5, resume=True)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "note" in line]
    for said in ("lr 0.01 (was 0.05)", "momentum 0.5 (was 0.9)", "weight_decay 0.1 (was 0)"):
        assert said in line
    (group,) = content["optimizer_states"][0]["param_groups"]
    whole = WarmupCosine(SGD(slower.parameters(), lr=0.01), warmup=2, total=8)
    assert (group["initial_lr"], group["momentum"], group["weight_decay"]) == (0.01, 0.5, 0.1)
    assert group["lr"] == 0.01 * whole.factor(5)
    assert average.decay_at(99) == 0.25


def test_momenta_come_from_the_checkpoint(tmp_path: Path) -> None:
    before = fit(tmp_path, module(), steps=3)["optimizer_states"][0]["state"]
    still = module(lambda p: SGD(p, lr=0.0, momentum=1.0, dampening=1.0))
    after = fit(tmp_path, still, steps=4, resume=True)["optimizer_states"][0]["state"]
    for key, value in before.items():
        torch.testing.assert_close(after[key]["momentum_buffer"], value["momentum_buffer"])


def test_what_cannot_be_resumed_is_refused_by_name(tmp_path: Path) -> None:
    fit(tmp_path, module(lambda p: Adam(p, lr=1e-3)), steps=1)
    with pytest.raises(CheckpointError, match="without amsgrad cannot go on with it"):
        fit(tmp_path, module(lambda p: Adam(p, amsgrad=True)), steps=2, resume=True)
    with pytest.raises(CheckpointError, match=r"groups of \[6\] weights.*run of \[2, 4\]"):
        fit(tmp_path, module(Muon), steps=2, resume=True)
    content = torch.load(tmp_path / "run.ckpt", weights_only=True)
    del content["optimizer_states"], content["lr_schedulers"], content["callbacks"]
    torch.save(content, tmp_path / "run.ckpt")
    with pytest.raises(CheckpointError, match="weights alone"):
        fit(tmp_path, module(), steps=2, resume=True)


def test_patience_is_that_of_the_resumed_run(tmp_path: Path) -> None:
    fit(tmp_path, module(), EarlyStopping("val/loss", patience=9), steps=3)
    stopping = EarlyStopping("val/loss", patience=4)
    fit(tmp_path, module(), stopping, steps=5, resume=True)
    assert stopping.patience == 4


def plateau(**options: Any) -> Make:
    return lambda o: schedules.ReduceLROnPlateau(o, threshold=1e9, patience=0, **options)


def test_a_plateau_is_looked_at_after_every_validation(tmp_path: Path) -> None:
    """With a threshold that nothing reaches, every validation lowers the rate."""
    content = fit(tmp_path, module(scheduler=plateau(factor=0.5)), steps=6)
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == 0.05 / 8
    content = fit(tmp_path, module(scheduler=plateau(factor=0.1)), steps=8, resume=True)
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.05 / 80)
    half = module(lambda p: SGD(p, lr=0.5, momentum=0.9), plateau(factor=0.1))
    content = fit(tmp_path, half, steps=9, resume=True)
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.5 / 80)


class Weighted(nn.Module):
    """A loss with a weight and a kernel that learn, and a layer that does not."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.kernel = nn.Conv2d(3, size, 3)
        self.still = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, out: Tensor, target: Tensor) -> Tensor:
        error = (out - target).abs().mean() * self.weight + self.weight.square()
        return error + self.kernel(out - target).square().mean()


def test_a_loss_with_weights_is_trained_saved_and_resumed(tmp_path: Path) -> None:
    loss = Weighted()
    started = {name: value.clone() for name, value in loss.named_parameters()}
    content = fit(tmp_path, module(Muon, loss=loss), EMA(decay=0.5), steps=3)
    for name, value in started.items():
        moved = not torch.equal(content["current_model_state"][f"loss.{name}"], value)
        assert moved == (not name.startswith("still")), name
    again = fit(tmp_path, module(Muon, loss=Weighted()), EMA(decay=0.5), steps=4, resume=True)
    assert again["current_model_state"]["loss.weight"] != content["state_dict"]["loss.weight"]
    for other in (None, Weighted(size=4)):
        with pytest.raises(CheckpointError, match=r"do not fit model\.loss of this run"):
            fit(tmp_path, module(Muon, loss=other), steps=5, resume=True)


class PerPixel(nn.Module):
    def forward(self, out: Tensor, target: Tensor) -> Tensor:
        return (out - target).abs()


class OneInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class OneChannel(TinyNetwork):
    def forward(self, *arguments: Any, **options: Any) -> Tensor:
        return super().forward(*arguments, **options)[:, :1]


class Two(TinyNetwork):
    def forward(self, *arguments: Any, **options: Any) -> Any:
        return super().forward(*arguments, **options), 1


class Detached(nn.Module):
    def forward(self, out: Tensor, target: Tensor) -> Tensor:
        return (out - target).abs().mean().detach()


def test_networks_losses_and_options_that_cannot_be_trained_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"OneInput takes \(x: .*called with \(x, mu, t, cont"):
        MRDiffusion(OneInput())
    with pytest.raises(TrainingError, match=r"model\.loss: .*OneInput takes"):
        MRDiffusion(TinyNetwork(), loss=OneInput())
    wrong = {
        r"PerPixel returns \[4, 3, 32, 32\], not one number": module(loss=PerPixel()),
        r"Detached returns a number without a gradient": module(loss=Detached()),
        r"OneChannel returns \[4, 1, 32, 32\]; it must be": MRDiffusion(OneChannel()),
        r"Two returns tuple; it must be a tensor \[4, 3, 32, 32\]": MRDiffusion(Two()),
        "Invalid learning rate: -1": module(lambda p: Adam(p, lr=-1)),
        "ends after 2 steps and the run has 3": module(
            scheduler=lambda o: schedules.OneCycleLR(o, 0.1, 2)
        ),
    }
    for message, model in wrong.items():
        with pytest.raises((TrainingError, NetworkError), match=message):
            fit(tmp_path, model, steps=3)
    with pytest.raises(TrainingError, match=r"keeps weights in 16 bits.*bf16-mixed"):
        tiny_trainer(tmp_path, precision="bf16-true").fit(module(), loader())
