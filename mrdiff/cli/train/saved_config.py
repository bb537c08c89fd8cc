"""Files of a run besides its checkpoints: none takes the place of another run's."""

from __future__ import annotations

import sys
from itertools import chain, count
from pathlib import Path

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger

from mrdiff.system.files import write_text


def _folder(trainer: Trainer) -> Path | None:
    """That of the logs, else that of the checkpoints: both are the run's own."""
    if isinstance(trainer.logger, (CSVLogger, TensorBoardLogger)):
        return Path(trainer.logger.log_dir)
    callbacks = (each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint))
    return next((Path(each.dirpath) for each in callbacks if each.dirpath), None)


def _free(path: Path) -> Path:
    """The path, or with ``-v1``, ``-v2``, ... if it is taken."""
    names = (path.with_stem(f"{path.stem}-v{i}") for i in count(1))
    return next(name for name in chain([path], names) if not name.exists())


def _is_told(logger: Logger) -> bool:
    """Whether it is a run of MLflow that goes on, whose parameters never change."""
    if not isinstance(logger, MLFlowLogger):
        return False
    return bool(logger.experiment.get_run(logger.run_id).data.params)


def keep_metrics(trainer: Trainer) -> None:
    """Put aside the ``metrics.csv`` of an earlier run of the same version: Lightning deletes it."""
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if isinstance(logger, CSVLogger) and (old := Path(logger.log_dir, "metrics.csv")).exists():
            kept = old.rename(_free(old))
            print(f"note: earlier metrics are kept as {kept}", file=sys.stderr)


class SaveConfig(SaveConfigCallback):
    """Gives the loggers the configuration and writes ``config.yaml`` when a fit starts.

    The checkpoint that it resumes is not in it. It replaces only that of the run which is resumed.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # The parent writes here, over what is in the working folder if there are no logs.
        if stage == "fit" and trainer.is_global_zero:
            settings = yaml.safe_load(self._text())
            for logger in trainer.loggers:
                if not _is_told(logger):
                    logger.log_hyperparams(settings)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        folder = _folder(trainer)
        if folder is None:
            print("note: no config.yaml is saved: no logs, no checkpoints", file=sys.stderr)
            return
        path = folder / self.config_filename
        resumed = Path(trainer.ckpt_path or "").resolve()
        if folder.resolve() not in resumed.parents:
            path = _free(path)
        if path.name != self.config_filename or not trainer.loggers:
            print(f"note: the configuration is saved as {path}", file=sys.stderr)
        write_text(path, self._text())

    def _text(self) -> str:
        config = self.config.clone()
        config.ckpt_path = None
        text: str = self.parser.dump(config, skip_none=False)
        return text
