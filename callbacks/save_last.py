"""``last.ckpt``: the newest state of a run, so that whatever ends it costs minutes."""

import copy
import os
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mrdiff.system.files import clear_leftovers
from mrdiff.training.saving import WholeCheckpointIO, save_whole

_AGREE = 10  # steps: several processes ask the first one for the time only so often


class SaveLast(ModelCheckpoint):
    """Writes ``last.ckpt`` after every validation, every so often, and when a fit ends or stops.

    It stands beside the files of the first other ``ModelCheckpoint``. Nobody else writes it: who
    asks for ``save_last`` gets it from here. A checkpoint that cannot be written, be it the last or
    the best, costs one line and not the run; but a fit whose end cannot be written fails.

    A resumed run goes on with the files that lie beside its checkpoint, however their folder is
    called by now. Any other that finds the name taken writes ``last-v1.ckpt``.

    Args:
        minutes: between two saves where no validation comes first.
    """

    def __init__(self, *, minutes: float = 10.0) -> None:
        if not minutes > 0:
            raise ValueError(f"minutes must be positive, got {minutes}")
        super().__init__(save_last=True, save_top_k=0)
        self.minutes = minutes
        self.saved: Path | None = None  # what was written when the fit ended or was stopped
        self._io: WholeCheckpointIO | None = None
        self._before: list[dict[str, Any]] = []  # a validation: the states of the others
        self._owed = False  # the save of a validation, when the epoch ends

    @property
    def state_key(self) -> str:
        return type(self).__name__  # the parent's may be another callback's

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        others = _others(trainer)
        for other in others:
            other.save_last = None
        if others and others[0].dirpath:  # else both will find the same
            self.dirpath = others[0].dirpath
        # Behind the others, so that what is saved knows of their files.
        known: Any = trainer  # typed as less than it is
        known.callbacks = [each for each in known.callbacks if each is not self] + [self]
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._io = save_whole(trainer)
            if self._io is not None:
                self._io.tolerant = True
            if trainer.is_global_zero:
                clear_leftovers(Path(str(self.dirpath)))

    def state_dict(self) -> dict[str, Any]:
        return {"dirpath": self.dirpath, "last_model_path": self.last_model_path}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """All is done by :meth:`on_load_checkpoint`."""

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        states = checkpoint["callbacks"]
        source = _real(trainer.ckpt_path).parent
        for callback in (self, *_others(trainer)):
            folder, state = str(callback.dirpath), states.get(callback.state_key)
            if state and _real(folder) in (source, _real(state["dirpath"])):
                _move(state, folder)
        if _real(self.dirpath) == source:
            own = states.get(self.state_key, {}).get("last_model_path")
            self.last_model_path = own or self.format_checkpoint_name({}, self.CHECKPOINT_NAME_LAST)
            for other in _others(trainer):
                # What lies here is ours: a best that was written just before a kill, and that the
                # checkpoint does not know, is replaced.
                other._enable_version_counter = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        known: Any = trainer  # typed as less than it is
        sets = getattr(known.datamodule, "sets", None)  # its loaders may not have been asked for
        given = known.val_dataloaders != [] if sets is None else sets["val"] is not None
        validates = trainer.enable_validation and given
        if trainer.is_global_zero and not validates:
            often = f"a checkpoint is written every {self.minutes:g} minutes and at the end"
            print(f"note: nothing is validated: {often}", file=sys.stderr, flush=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Between two steps of the optimizer; behind an epoch's last, its validation comes first.
        if not (trainer.is_last_batch or trainer.fit_loop._should_accumulate()):
            self._save_if_due(trainer)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._io is not None and _fitting(trainer):
            self._io.failures.clear()
            self._before = [copy.deepcopy(other.state_dict()) for other in _others(trainer)]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, once the others have: some do so when the epoch ends."""
        if _fitting(trainer):
            late = [other._should_save_on_train_epoch_end(trainer) for other in _others(trainer)]
            self._owed = trainer.is_last_batch and any(late)
            if not self._owed:
                self._save_validated(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._owed:
            self._owed = False
            self._save_validated(trainer)
        else:
            self._save_if_due(trainer)

    def _save_validated(self, trainer: Trainer) -> None:
        """What was the best and could not be written is not the best."""
        for other, before in zip(_others(trainer), self._before, strict=False):
            known = {other.best_model_path, *other.best_k_models}
            if self._io is not None and self._io.failures & known:
                other.load_state_dict(before)
        self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end.

        Raises:
            OSError: it cannot be written.
        """
        self._save_end(trainer)
        error = trainer.strategy.broadcast(None if self._io is None else self._io.failed)
        if error is not None:
            why = f"{error.strerror}: the end of the run is not saved"
            raise OSError(error.errno, why, error.filename)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save on a stop by signal; after any other error the last regular checkpoint stands."""
        if isinstance(exception, SIGTERMException) and not trainer.sanity_checking:
            self._save_end(trainer)

    def _save_if_due(self, trainer: Trainer) -> None:
        if trainer.world_size > 1 and trainer.fit_loop.total_batch_idx % _AGREE:
            return
        assert self._last_time_checked is not None
        late = time.monotonic() - self._last_time_checked >= 60 * self.minutes
        if trainer.strategy.broadcast(late):
            self._save(trainer)

    def _save_end(self, trainer: Trainer) -> None:
        if self._save(trainer) and (self._io is None or self._io.failed is None):
            self.saved = Path(self.last_model_path)

    def _save(self, trainer: Trainer) -> bool:
        """Whether there was something to save."""
        known: Any = trainer  # typed as less than it is
        if known.fast_dev_run or trainer.global_step == 0:
            return False
        self._save_last_checkpoint(trainer, {})
        self._last_time_checked = time.monotonic()
        return True


def _others(trainer: Trainer) -> list[ModelCheckpoint]:
    found = (each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint))
    return [each for each in found if not isinstance(each, SaveLast)]


def _fitting(trainer: Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def _real(path: Any) -> Path:
    return Path(os.path.realpath(str(path)))


def _move(state: dict[str, Any], folder: str) -> None:
    """Let a ModelCheckpoint's state name its files in a folder that is now called otherwise."""
    old = state["dirpath"]

    def moved(path: str) -> str:
        inside = os.path.relpath(path, old) if path else ".."
        return path if inside.startswith("..") else os.path.join(folder, inside)

    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        if key in state:
            state[key] = moved(state[key])
    if "best_k_models" in state:
        state["best_k_models"] = {moved(k): v for k, v in state["best_k_models"].items()}
    state["dirpath"] = folder
