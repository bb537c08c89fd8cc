"""FiniteLoss: a run that diverges ends and says so; any other is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from callbacks import FiniteLoss
from callbacks.finite_loss import DivergedError
from tests.tiny_training import loader, tiny_module, tiny_trainer


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

    class Trainer:
        _logger_connector = Connector()
        optimizers: tuple[Any, ...] = ()

    for outputs in (None, torch.tensor(1.0), {"loss": torch.tensor(1.0)}):
        FiniteLoss().on_train_batch_end(Trainer(), None, outputs, None, 0)  # type: ignore[arg-type]
