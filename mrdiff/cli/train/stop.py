"""End a run cleanly: SIGTERM and the first Ctrl+C finish the step, then ``last.ckpt`` is saved.

Lightning raises ``SIGTERMException`` between two batches, upon which ``callbacks.SaveLast`` writes.
SLURM's warning that the time is up, SIGUSR1 unless the recipe has a ``SLURMEnvironment`` that says
otherwise, does the same and puts the job into the queue again. Lightning's own answers will not do:
to SIGUSR1 it saves within a step, into the working folder, and to SIGTERM it has the processes talk
from within the handler, where each is at another place, so that they wait for one another for ever.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mrdiff.cli.train.slurm import JOB_KEY, job_id, requeue


class StopBySignal(Callback):
    """Turns signals into a stop after the step, or in the midst of validation."""

    def __init__(self) -> None:
        self._asked = False
        self._stopped_by: int = signal.SIGTERM
        self._requeue_signal: int | None = None
        self._trainer: Trainer | None = None
        self._previous: Any = None
        self._pid = os.getpid()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer = trainer
        slurm = trainer._accelerator_connector.cluster_environment
        if stage == "fit" and isinstance(slurm, SLURMEnvironment) and slurm.auto_requeue:
            # Lightning leaves a signal alone that has a handler.
            self._requeue_signal = slurm.requeue_signal or signal.SIGUSR1
            signal.signal(self._requeue_signal, self._on_signal)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)  # Lightning puts back what was before it
        self._previous = signal.signal(signal.SIGINT, self._on_signal)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Let several processes stop behind the same batch, whichever was told to."""
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            trainer._signal_connector.received_sigterm = True

    def on_validation_start(self, trainer: Trainer, *_: Any) -> None:
        """Validation may take longer than there is time: it is made up for by who resumes."""
        if trainer.received_sigterm:
            raise SIGTERMException

    def on_validation_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.on_validation_start(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let SLURM's job find its checkpoint when it runs again."""
        job = job_id()
        if job is not None:
            checkpoint[JOB_KEY] = {"id": job, "requeued": self._stopped_by == self._requeue_signal}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def finish(self) -> int:
        """After the stop: say what was saved, requeue if that was asked for; the exit status."""
        trainer = self._trainer
        if trainer is not None and trainer.is_global_zero:
            found = (getattr(each, "saved", None) for each in trainer.checkpoint_callbacks)
            saved: Path | None = next(filter(None, found), None)
            said = f"saved {saved}; resume with --ckpt_path last" if saved else "nothing is saved"
            if self._stopped_by == self._requeue_signal and saved:
                said = f"saved {saved}; {requeue()}"
            print("stopped:", said, file=sys.stderr)
        return 128 + (signal.SIGINT if self._stopped_by == signal.SIGINT else signal.SIGTERM)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        """The first one is a SIGTERM; a second Ctrl+C interrupts at once and saves nothing."""
        if self._pid != os.getpid():  # a data worker forked from us: the parent decides
            return
        self._stopped_by, self._asked = signum, True
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._trainer is not None and self._trainer.world_size == 1:
            self._trainer._signal_connector.received_sigterm = True
