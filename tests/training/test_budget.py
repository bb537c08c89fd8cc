"""A run that the clock ends: its rate, its validations, its end, and what is left on a resume."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, timer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from callbacks import SaveLast
from mrdiff import MRDiffusion
from mrdiff.cli.train.continuing import Continuing
from mrdiff.training import budget
from mrdiff.training.budget import TRAINER_OPTIONS, Budget, planned_validations
from mrdiff.training.checks import TrainingError
from mrdiff.training.warmup import WarmupCosine
from tests.tiny_training import TinyNetwork, loader, tiny_trainer

PEAK, FINAL = 0.05, 0.1
END = FINAL * PEAK


class Clock(Callback):
    """Time that goes by in steps and validations alone; at ``stop`` the run gets a signal."""

    def __init__(self, *, step: float, validation: float = 0.0, stop: float | None = None) -> None:
        self.step, self.validation, self.stop = step, validation, stop
        self.now = 100.0  # of a machine that has been on for a while
        self.rates: list[float] = []  # with which each step was made
        self.validated: list[float] = []  # when, since the start

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.now += self.step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if self.stop is not None and self.now - 100 >= self.stop:
            trainer._signal_connector.received_sigterm = True

    def on_validation_epoch_end(self, *_: Any) -> None:
        self.validated.append(self.now - 100)
        self.now += self.validation


class Run:
    """A fit of so many minutes under such a clock; it goes on from the last one of its folder."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, minutes: float = 1, **times: Any
    ) -> None:
        self.clock = Clock(**times)
        ours: list[Callback] = [Budget(minutes=minutes, validations=4), self.clock, Continuing()]
        patch.setattr(timer, "time", SimpleNamespace(monotonic=lambda: self.clock.now))
        torch.manual_seed(0)
        module = MRDiffusion(
            TinyNetwork(),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=PEAK),
            lr_scheduler=lambda optimizer: WarmupCosine(optimizer, warmup=3, final=FINAL),
        )
        ours += [ModelCheckpoint(folder, "best", monitor="val/loss"), SaveLast()]
        self.trainer = tiny_trainer(folder, *ours, **TRAINER_OPTIONS)
        path = str(folder / "last.ckpt") if (folder / "last.ckpt").exists() else None
        loaders = loader(count=70, batch_size=1, size=8), loader(count=1, batch_size=1, size=8)
        try:
            self.trainer.fit(module, *loaders, ckpt_path=path, weights_only=True)
        except SIGTERMException:
            assert self.clock.stop is not None

    @property
    def rate(self) -> float:
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    @property
    def seconds(self) -> float:
        return self.clock.now - 100


@pytest.mark.parametrize(
    ("step", "validation", "guess", "steps", "validated"),
    [
        (1.5, 0.0, 0, 40, [15, 30, 45, 60]),  # nothing but steps
        (1.5, 3.0, 1, 32, [15, 30, 45, 57]),  # the last one within the time
        (2.0, 9.0, 1, 21, [16, 51]),  # at equal distances they would take most of it
        (2.0, 25.0, 40, 8, [16]),  # on a slow machine: only one
        (1.0, 50.0, 0, 16, [15, 66]),  # one takes nearly all of it, which nobody knew
        (45.0, 1.0, 40, 2, [45, 91]),
        (100.0, 1.0, 40, 1, [100]),
    ],
)
def test_a_run_ends_by_the_clock_at_the_end_of_its_rate(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: float,
    validation: float,
    guess: int,
    steps: int,
    validated: list[float],
) -> None:
    monkeypatch.setattr(budget, "_GUESS", guess)
    run = Run(tmp_path, monkeypatch, step=step, validation=validation)
    assert run.rate == pytest.approx(END, rel=1e-12)
    assert run.trainer.global_step == steps
    assert run.clock.validated == validated
    assert run.seconds == validated[-1] + validation
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"best.ckpt", "last.ckpt"}
    warmed = run.clock.rates[min(3, steps) :]
    assert all(a >= b for a, b in itertools.pairwise(warmed))


def test_a_resumed_run_goes_on_with_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(budget, "_GUESS", 0)
    times = {"step": 3.0, "validation": 3.0}
    whole = Run(tmp_path / "whole", monkeypatch, **times)
    for stop in (21.0, 30.0, 54.0):  # 30: with a validation due
        first = Run(tmp_path / str(stop), monkeypatch, **times, stop=stop)
        second = Run(tmp_path / str(stop), monkeypatch, **times)
        assert "note: resumed under other options" not in capsys.readouterr().err
        assert first.clock.rates + second.clock.rates == whole.clock.rates
        assert first.seconds + second.seconds == whole.seconds == 60
        assert second.rate == whole.rate


def test_only_more_minutes_take_up_a_run_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(budget, "_GUESS", 0)
    first = Run(tmp_path, monkeypatch, step=6.0)
    again = Run(tmp_path, monkeypatch, step=6.0)
    assert (again.clock.rates, again.trainer.global_step) == ([], len(first.clock.rates))
    assert "the 1 minutes are over: give more --minutes" in capsys.readouterr().err
    longer = Run(tmp_path, monkeypatch, 2, step=6.0)
    assert "the learning rate goes on at" in capsys.readouterr().err
    assert longer.clock.rates[0] > 0.5 * PEAK
    assert longer.rate == pytest.approx(END, rel=1e-12)
    assert longer.seconds <= 120 - first.seconds


def test_processes_agree_on_the_first_ones_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them, whose clocks differ, asked in turn; how often the first one is asked."""
    monkeypatch.setattr(budget, "_GUESS", 0)
    clocks, said = [0.0, 0.0], []
    budgets = [Budget(minutes=1, validations=4) for _ in clocks]

    def broadcast(value: Any) -> Any:
        said.append(value)
        return said[-1 - rank]  # the first process is asked first

    loop = SimpleNamespace(_should_accumulate=lambda: False)
    seen = []
    for step in range(200):
        for rank, each in enumerate(budgets):
            clocks[rank] += 0.4 + 0.3 * rank
            each.time_elapsed = lambda rank=rank: clocks[rank]  # type: ignore[method-assign, misc]
            trainer: Any = SimpleNamespace(
                world_size=2,
                global_step=step,
                log_every_n_steps=10**9,
                fit_loop=loop,
                should_stop=False,
                sanity_checking=False,
                num_val_batches=[3],
                strategy=SimpleNamespace(broadcast=broadcast),
            )
            each.on_before_optimizer_step(trainer)
            trainer.global_step = step + 1
            each.on_train_batch_end(trainer, None)  # type: ignore[arg-type]
            seen.append((each.progress(), trainer.val_check_batch, trainer.should_stop))
            if trainer.val_check_batch == 1:
                each.on_validation_start(trainer, None)  # type: ignore[arg-type]
                each.on_train_batch_start(trainer, None)  # type: ignore[arg-type]
                each._took = 1.0 + rank  # they do not take equally long
    assert seen[::2] == seen[1::2]
    assert len(said) == 2 * 200 / 10
    assert [every for _, every, _ in seen[::2]].count(1) == 3
    assert [stop for _, _, stop in seen[::2]].index(True) == 150  # 59 s of 0.4 s, at a look


def test_only_the_end_follows_the_clock_with_another_schedule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(schedule: Any) -> Any:
        clock = Clock(step=2.0)
        monkeypatch.setattr(timer, "time", SimpleNamespace(monotonic=lambda: clock.now))
        trainer = tiny_trainer(tmp_path, Budget(minutes=0.5), clock, **TRAINER_OPTIONS)
        module = MRDiffusion(TinyNetwork(), lr_scheduler=schedule)
        trainer.fit(module, loader(count=100, batch_size=1, size=8))
        return trainer

    constant = torch.optim.lr_scheduler.ConstantLR
    assert fit(lambda optimizer: constant(optimizer, factor=1.0)).global_step == 15
    said = capsys.readouterr().err
    assert said.count("note: ConstantLR does not follow `minutes`") == 1
    with pytest.raises(TrainingError, match="steps and the run has as many as its minutes"):
        fit(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=1e-3, total_steps=9))


@given(
    warmup=st.integers(0, 200),
    final=st.floats(0, 1),
    steps=st.lists(st.floats(1e-4, 0.3), min_size=1, max_size=60),
)
def test_the_rate_follows_any_progress(warmup: int, final: float, steps: list[float]) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = WarmupCosine(optimizer, warmup=warmup, total=7, final=final)
    progress = list(itertools.takewhile(lambda p: p < 1, itertools.accumulate(steps)))
    clock = [*progress, 1.0]
    rates: list[float] = []
    schedule.progress = lambda: clock[len(rates)]
    for _ in clock:
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    assert rates[-1] == pytest.approx(final, abs=1e-12)
    assert all(0 <= rate <= 1 for rate in rates)
    warm = [rate for rate, now in zip(rates, clock, strict=True) if now >= 0.1]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(warm))
    assert "progress" not in schedule.state_dict()


def test_as_many_validations_as_by_steps() -> None:
    def section(steps: Any, every: Any, accumulate: Any = 1) -> SimpleNamespace:
        return SimpleNamespace(
            max_steps=steps, val_check_interval=every, accumulate_grad_batches=accumulate
        )

    assert planned_validations(section(7000, 1000)) == 7
    assert planned_validations(section(100, 1000)) == 1
    assert planned_validations(section(100, 50, 4)) == 8
    for unknown in (section(-1, 1000), section(100, None), section(100, 0.5)):
        assert planned_validations(unknown) == 7
    for minutes in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="minutes must be positive"):
            Budget(minutes=minutes)


def test_the_rate_begins_behind_what_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a minute of it, a tenth of the time, would be the end of the warm-up."""
    budget, clock = Budget(minutes=10), iter([90.0, 90.0, 345.0, 345.0, 600.0, 600.0])
    monkeypatch.setattr(budget, "time_elapsed", lambda: next(clock))
    strategy, found = SimpleNamespace(broadcast=lambda given: given), []
    for step in range(3):
        told: Any = {"strategy": strategy, "world_size": 1, "num_val_batches": [0]}
        budget.on_before_optimizer_step(SimpleNamespace(global_step=step, **told))  # type: ignore[arg-type]
        found.append(budget.progress())
    assert found == [0, 0.5, 1]
