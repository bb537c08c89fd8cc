"""The average of the weights: that it is right, and that it is what gets validated and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from callbacks import EMA
from tests.tiny_training import loader, tiny_module, tiny_trainer, weights

Weights = dict[str, Tensor]


class Spy(Callback):
    """Records the weights after every step and at every validation batch. List it after EMA."""

    def __init__(self) -> None:
        self.trained: list[Weights] = []
        self.validated: list[Weights] = []
        self.tested: list[Weights] = []
        self.first: Weights = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.first = weights(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.trained.append(weights(pl_module))

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any
    ) -> None:
        self.validated.append(weights(pl_module))

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.tested.append(weights(pl_module))


def assert_same(actual: Weights, expected: Weights) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, msg=lambda m, n=name: f"{n}: {m}")


def differ(a: Weights, b: Weights) -> bool:
    return any(not torch.allclose(a[name], b[name], atol=1e-7) for name in a)


def slow_average(history: list[Weights], *, decay: float, warmup: bool) -> Weights:
    """The definition, one weight at a time."""
    average = dict(history[0])
    for n, current in enumerate(history[1:], start=1):
        d = min(decay, (1 + n) / (10 + n)) if warmup else decay
        average = {name: d * average[name] + (1 - d) * current[name] for name in average}
    return average


def parameters_of(checkpoint: Path, key: str = "state_dict") -> Weights:
    state = torch.load(checkpoint, weights_only=True)[key]
    return {k: v for k, v in state.items() if k in dict(tiny_module().named_parameters())}


@pytest.mark.parametrize("warmup", [True, False])
def test_average_is_validated_saved_and_left_behind(tmp_path: Path, warmup: bool) -> None:
    spy, module = Spy(), tiny_module()
    save = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, save_last=True)
    trainer = tiny_trainer(tmp_path, EMA(decay=0.5, warmup=warmup), spy, save)
    trainer.fit(module, loader(), loader(batch_size=8))
    assert len(spy.trained) == 4
    for validated, steps in zip(spy.validated, (2, 4), strict=True):
        average = slow_average(spy.trained[:steps], decay=0.5, warmup=warmup)
        assert differ(average, spy.trained[steps - 1])
        assert_same(validated, average)
        file = tmp_path / f"step={steps}.ckpt"
        assert_same(parameters_of(file), average)
        assert_same(parameters_of(file, "current_model_state"), spy.trained[steps - 1])
    assert_same(weights(module), average)
    # ``last`` is written after the average has become the module's weights.
    assert_same(parameters_of(tmp_path / "last.ckpt"), average)
    assert_same(parameters_of(tmp_path / "last.ckpt", "current_model_state"), spy.trained[-1])


def test_test_after_fit_uses_the_checkpoint(tmp_path: Path) -> None:
    spy, module = Spy(), tiny_module()
    save = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1)
    trainer = tiny_trainer(tmp_path, EMA(decay=0.5), spy, save)
    trainer.fit(module, loader(), loader())
    for steps in (2, 4):
        average = slow_average(spy.trained[:steps], decay=0.5, warmup=True)
        spy.validated.clear()
        spy.tested.clear()
        file = str(tmp_path / f"step={steps}.ckpt")
        trainer.test(module, loader(), ckpt_path=file, verbose=False, weights_only=True)
        trainer.validate(module, loader(), ckpt_path=file, verbose=False, weights_only=True)
        for seen in (*spy.tested, *spy.validated):
            assert_same(seen, average)
    trainer.test(module, loader(), ckpt_path="best", verbose=False, weights_only=True)


def test_fresh_trainer_evaluates_the_average(tmp_path: Path) -> None:
    spy = Spy()
    save = ModelCheckpoint(tmp_path, filename="only")
    trainer = tiny_trainer(tmp_path, EMA(decay=0.5), spy, save)
    trainer.fit(tiny_module(), loader())
    expected = slow_average(spy.trained, decay=0.5, warmup=True)
    fresh = Spy()
    tiny_trainer(tmp_path, EMA(), fresh).validate(
        tiny_module(), loader(), ckpt_path=tmp_path / "only.ckpt", verbose=False
    )
    assert_same(fresh.validated[0], expected)


def test_resume_continues_both_sets_of_weights(tmp_path: Path) -> None:
    whole, module = Spy(), tiny_module()
    tiny_trainer(tmp_path, EMA(decay=0.5), whole).fit(module, loader(), loader())
    save = ModelCheckpoint(tmp_path, save_last=True)
    tiny_trainer(tmp_path, EMA(decay=0.5), save, max_epochs=1).fit(
        tiny_module(), loader(), loader()
    )
    rest, resumed = Spy(), tiny_module()
    tiny_trainer(tmp_path, EMA(decay=0.5), rest).fit(
        resumed, loader(), loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True
    )
    assert_same(rest.first, whole.trained[1])
    assert_same(rest.trained[-1], whole.trained[-1])
    assert_same(weights(resumed), weights(module))


@pytest.mark.parametrize("start", [3, 100])
def test_late_start_ends_with_trained_weights(tmp_path: Path, start: int) -> None:
    spy, module = Spy(), tiny_module()
    save = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1)
    ema = EMA(decay=0.5, update_starting_at_step=start)
    tiny_trainer(tmp_path, ema, spy, save).fit(module, loader(), loader())
    assert differ(spy.first, spy.trained[-1])
    assert_same(weights(module), spy.trained[-1])
    assert_same(spy.validated[0], spy.trained[1])
    assert_same(parameters_of(tmp_path / "step=2.ckpt"), spy.trained[1])


def test_updates_every_n_steps(tmp_path: Path) -> None:
    spy, module = Spy(), tiny_module()
    ema = EMA(decay=0.5, warmup=False, update_every_n_steps=2)
    tiny_trainer(tmp_path, ema, spy).fit(module, loader(), None)
    assert_same(weights(module), slow_average(spy.trained[::2], decay=0.5, warmup=False))


def test_buffers_are_copied_not_averaged(tmp_path: Path) -> None:
    module = tiny_module()
    tiny_trainer(tmp_path, EMA(decay=0.9)).fit(module, loader())
    plain = tiny_module()
    tiny_trainer(tmp_path).fit(plain, loader())
    norm, expected = module.network.norm, plain.network.norm
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(expected, nn.BatchNorm2d)
    assert int(norm.num_batches_tracked) == 4
    torch.testing.assert_close(norm.running_mean, expected.running_mean)


class StopInValidation(Callback):
    """Interrupts the second validation."""

    validations = 0

    def on_validation_batch_end(self, *_: Any) -> None:
        self.validations += 1
        if self.validations == 2:
            raise RuntimeError("the power is gone")


def test_interrupt_within_validation_saves_both_in_their_places(tmp_path: Path) -> None:
    spy, module = Spy(), tiny_module()
    save = ModelCheckpoint(tmp_path, filename="{step}", save_on_exception=True, save_top_k=-1)
    trainer = tiny_trainer(tmp_path, EMA(decay=0.5), spy, StopInValidation(), save)
    with pytest.raises(RuntimeError, match="power"):
        trainer.fit(module, loader(), loader(batch_size=8))
    (file,) = tmp_path.glob("step=4*.ckpt")
    assert_same(parameters_of(file), slow_average(spy.trained, decay=0.5, warmup=True))
    assert_same(parameters_of(file, "current_model_state"), spy.trained[-1])


class SaveInValidation(Callback):
    """Writes a checkpoint while the averaged weights are in the module."""

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "mid.ckpt")


def test_checkpoint_within_validation(tmp_path: Path) -> None:
    spy, module = Spy(), tiny_module()
    trainer = tiny_trainer(tmp_path, EMA(decay=0.5), spy, SaveInValidation())
    trainer.fit(module, loader(), loader(batch_size=8))
    file = tmp_path / "mid.ckpt"
    assert_same(parameters_of(file), slow_average(spy.trained, decay=0.5, warmup=True))
    assert_same(parameters_of(file, "current_model_state"), spy.trained[-1])


def test_memory_format_of_the_average_follows_the_network(tmp_path: Path) -> None:
    class LateFormat(Callback):
        """Changes the format after EMA has made its copy, as a device move also would."""

        def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
            pl_module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    module, ema = tiny_module(), EMA(decay=0.5)
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    tiny_trainer(tmp_path, ema, LateFormat()).fit(module, loader(), loader())
    assert ema._average_model is not None
    for copy, own in zip(ema._average_model.module.parameters(), module.parameters(), strict=True):
        assert copy.stride() == own.stride()
        if own.ndim == 4:
            assert own.is_contiguous(memory_format=torch.channels_last)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="decay"):
        EMA(decay=1.0)
    with pytest.raises(ValueError, match="update_every_n_steps"):
        EMA(update_every_n_steps=0)
    assert EMA(decay=0.999).decay_at(1) == 2 / 11
    assert EMA(decay=0.999).decay_at(10**6) == 0.999
    assert EMA(decay=0.999, warmup=False).decay_at(1) == 0.999
