"""End a run cleanly: SIGTERM and the first Ctrl+C finish the step, save ``last.ckpt``, leave.

Lightning notices SIGTERM between two batches and raises ``SIGTERMException``; nothing is saved by
itself. A checkpoint written at that moment resumes exactly, provided it holds the averaged and
the raw weights in their places (the EMA callback puts them back first, for it stands earlier in
the list) and the state of the random generators, which Lightning leaves out.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException


class SaveOnStop(Callback):
    """Save ``last.ckpt`` when a fit ends or is stopped; carry random states through a resume."""

    def __init__(self) -> None:
        self.saved: Path | None = None  # the checkpoint written at the end
        self.by_keyboard = False  # whether the stop came from Ctrl+C
        self._random: dict[str, Any] | None = None
        self._previous: Any = None
        self._pid = os.getpid()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the random states of a resumed run, now that the sanity check has drawn."""
        self._previous = signal.signal(signal.SIGINT, self._on_keyboard)
        if self._random is None:
            return
        torch.set_rng_state(self._random["cpu"])
        if torch.cuda.is_available() and len(self._random["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(self._random["cuda"])
        self._random = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end: ModelCheckpoint alone keeps the last validation's state as the last."""
        self._save(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save on a stop by signal; after any other error the last regular checkpoint stands."""
        if isinstance(exception, SIGTERMException) and not trainer.sanity_checking:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        writers = [
            callback
            for callback in trainer.checkpoint_callbacks
            if isinstance(callback, ModelCheckpoint) and callback.dirpath  # it knows its folder
        ]
        if not writers or trainer.global_step == 0:
            return
        checkpoint = writers[0]
        name = checkpoint.CHECKPOINT_NAME_LAST + checkpoint.FILE_EXTENSION
        path = checkpoint.last_model_path or str(Path(str(checkpoint.dirpath)) / name)
        checkpoint.last_model_path = path  # else it would see a stranger's file: last-v1.ckpt
        trainer.save_checkpoint(path, weights_only=False)  # with the optimizer's state
        self.saved = Path(path)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def state_dict(self) -> dict[str, Any]:
        """The random states as tensors, so that a checkpoint loads with ``weights_only=True``."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._random = state_dict

    def _on_keyboard(self, signum: int, frame: FrameType | None) -> None:
        """The first Ctrl+C is a SIGTERM; the second one interrupts at once and saves nothing."""
        if self._pid != os.getpid():  # a data worker forked from us: the parent decides
            return
        self.by_keyboard = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGTERM)
