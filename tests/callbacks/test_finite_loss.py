"""FiniteLoss: a run that diverges ends and says so; any other is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from callbacks import EMA, FiniteLoss
from callbacks.finite_loss import DivergedError
from tests.tiny_training import TinyImages, loader, tiny_module, tiny_trainer


class Exploding(nn.Module):
    """A loss that is as it should be for some steps, and then is not."""

    def __init__(self, *, after: int, value: float) -> None:
        super().__init__()
        self.calls, self.after, self.value = 0, after, value

    def forward(self, out: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        loss = (out - target).square().mean()
        return loss * self.value if self.calls > self.after else loss


def run(folder: Path, *, after: int, value: float, **options: Any) -> Exploding:
    module = tiny_module()
    loss = module.loss = Exploding(after=after, value=value)
    tiny_trainer(folder, FiniteLoss(), max_epochs=2, limit_val_batches=0, **options).fit(
        module, loader(count=24)
    )
    return loss


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_diverged_run_ends_at_the_next_logging_step(tmp_path: Path, value: float) -> None:
    expected = r"(inf|nan) at step 6: .*model.optimizer.lr \(now up to 0\.\d+\)"
    with pytest.raises(DivergedError, match=expected):
        run(tmp_path, after=3, value=value, log_every_n_steps=3)


def test_a_sound_run_goes_on_to_its_end(tmp_path: Path) -> None:
    assert run(tmp_path, after=99, value=1.0, log_every_n_steps=1).calls == 12


def test_the_loss_may_be_given_bare_or_not_at_all() -> None:
    class Connector:
        should_update_logs = True

    class Stub:
        _logger_connector = Connector()
        optimizers: tuple[Any, ...] = ()

    for outputs in (None, torch.tensor(1.0), {"loss": torch.tensor(1.0)}):
        FiniteLoss().on_train_batch_end(Stub(), None, outputs, None, 0)  # type: ignore[arg-type]


def test_the_last_step_is_looked_at_before_it_is_saved(tmp_path: Path) -> None:
    """The loss is no number at the last step alone, long before the next look."""
    save = ModelCheckpoint(tmp_path / "kept", save_last=True, every_n_epochs=1)
    module = tiny_module()
    module.loss = Exploding(after=11, value=float("nan"))
    trainer = tiny_trainer(tmp_path, FiniteLoss(), save, max_epochs=2, log_every_n_steps=50)
    with pytest.raises(DivergedError, match=r"the training loss is nan at step 12"):
        trainer.fit(module, loader(count=24))
    saved = torch.load(tmp_path / "kept" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 6
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


class Ruin(Callback):
    """Makes one weight infinite after the last step: no loss tells of it."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == 12:
            dict(pl_module.named_parameters())["denoiser.network.last.bias"].data[0] = float("inf")


@pytest.mark.parametrize("validated", [False, True])
def test_weights_that_are_not_finite_never_end_well(tmp_path: Path, validated: bool) -> None:
    trainer = tiny_trainer(tmp_path, Ruin(), EMA(), FiniteLoss(), log_every_n_steps=50)
    with pytest.raises(DivergedError, match=r"denoiser\.network\.last\.bias has values that"):
        trainer.fit(tiny_module(), loader(count=24), loader() if validated else None)


def test_nothing_is_saved_with_weights_that_are_not_finite(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, FiniteLoss(), max_epochs=1)
    module = tiny_module()
    trainer.fit(module, loader())
    module.denoiser.network.first.weight.data.fill_(float("nan"))
    with pytest.raises(DivergedError, match="not finite"):
        trainer.save_checkpoint(tmp_path / "ruined.ckpt")
    assert not (tmp_path / "ruined.ckpt").exists()


@pytest.mark.parametrize("key", ["lq", "gt"])
def test_images_that_are_not_finite_get_the_blame(tmp_path: Path, key: str) -> None:
    images = [TinyImages(12)[i] for i in range(12)]
    images[5][key][0, 0, 0] = float("nan")
    trainer = tiny_trainer(tmp_path, FiniteLoss(), max_epochs=1, log_every_n_steps=3)
    with pytest.raises(DivergedError, match=r"not finite in step 2: tiny/5$"):
        trainer.fit(tiny_module(), DataLoader(images, batch_size=4))
