"""``mrdiff train``: Lightning's command line with short errors and safe resumes.

The configuration is read in ``omegaconf+`` mode: interpolations are resolved once, after all
files and overrides are merged. A numerical precision left out (null) is chosen for the machine.
"""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from mrdiff.checkpoints.description import CheckpointError
from mrdiff.checkpoints.reading import read_checkpoint
from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.train.arguments import SUBCOMMANDS
from mrdiff.cli.train.messages import explain
from mrdiff.cli.train.resume import DEFAULT_LOGS, find_checkpoint, run_version
from mrdiff.cli.train.start import (
    STAND_IN,
    Start,
    add_options,
    architecture,
    find_start,
    without_printing,
)
from mrdiff.cli.train.stop import SaveOnStop
from mrdiff.system.devices import leave_group_at_exit, pick_precision
from mrdiff.system.memory import is_out_of_memory
from mrdiff.training.freezing import tally, trainable
from mrdiff.training.module import MRDiffusion
from mrdiff.training.transfer import init_from

# For the main parser too: it is the one that resolves ``${}`` after everything is merged.
_PARSER = {"parser_mode": "omegaconf+"}

_CLI = TypeVar("_CLI", bound=LightningCLI)


class MRDiffusionCLI(LightningCLI):
    """LightningCLI whose errors are raised, whose checkpoints exist, and whose flags win."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(exit_on_error=False, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_options(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse after the checkpoint's own settings; what is wrong becomes one line."""
        assert isinstance(args, list)
        arguments = list(args)
        start = find_start(arguments)
        try:
            found = self._checkpoint(parser, arguments, start)
            if found is not None:
                arguments[1:1] = ["--config", architecture(start, found)]
            super().parse_arguments(parser, arguments)
        except CheckpointError:
            raise
        except (jsonargparse.ArgumentError, ValueError, TypeError) as error:
            raise CommandError(explain(error, self._keys()), status=2) from error
        section = self.config[self.config.subcommand]
        section.base = None  # they were merged: the saved copy of the configuration stands alone
        section.ckpt_path = start.ckpt_path and str(found)
        section.init_from = start.init_from and str(found)

    def _checkpoint(
        self, parser: LightningArgumentParser, arguments: list[str], start: Start
    ) -> Path | None:
        """The checkpoint to start from; None for a run that starts from nothing."""
        value = start.init_from or start.ckpt_path
        if value is None:
            return None
        trainer: dict[str, Any] = {}
        if value == "last":
            command, *rest = without_printing(arguments)
            config = parser.parse_args([command, "--config", STAND_IN, *rest])
            trainer = self._plain(command, config[command])["trainer"]
        return find_checkpoint(value, trainer)

    def _keys(self) -> list[str]:
        """Every dotted key of the fit parser, for a did-you-mean."""
        options = [o for a in self._parser("fit")._actions for o in a.option_strings]
        return [option.removeprefix("--") for option in options if option.startswith("--")]

    def instantiate_classes(self) -> None:
        """Build everything; what a constructor refuses is a mistake in the configuration."""
        try:
            super().instantiate_classes()
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise CommandError(explain(error, self._keys()), status=2) from error

    def _parse_ckpt_path(self) -> None:
        """Refuse, before anything slow is built, what cannot be resumed or evaluated.

        Lightning's own version replaces explicit flags by what the checkpoint was trained with;
        here the flags win.
        """
        section = self.config[self.config.subcommand]
        if section.get("weights_only", False) is None:
            section.weights_only = True  # tensors and plain values alone: nothing is unpickled
        for key in ("init_from", "ckpt_path"):
            if section[key]:
                print(f"{key}: {section[key]}", file=sys.stderr)
        if section.ckpt_path and Path(section.ckpt_path).is_dir():
            raise CheckpointError(f"{section.ckpt_path} is a folder; give the .ckpt file")
        if section.ckpt_path:
            read_checkpoint(section.ckpt_path, merged=False)

    def _plain(self, command: str, config: Any) -> dict[str, Any]:
        """The resolved configuration of a subcommand as nested dicts, lists and scalars."""
        dumped = self._parser(command).dump(config, skip_unset=False, skip_validation=True)
        plain: dict[str, Any] = yaml.safe_load(dumped)
        return plain

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Choose the precision when the configuration leaves it open."""
        section = self.config_init[self.subcommand].trainer
        if section.precision is None:
            kwargs["precision"] = pick_precision(str(section.accelerator))
        path, version = self.config[self.subcommand].get("ckpt_path"), None
        if self.subcommand == "fit" and path:  # a resumed run goes on in its log folder
            config = self._plain(self.subcommand, self.config[self.subcommand])
            version = run_version(Path(path), config["trainer"])
        if version is not None and section.logger in (None, True):
            kwargs["logger"] = TensorBoardLogger(
                section.default_root_dir or ".", name=DEFAULT_LOGS, version=version
            )
        elif version is not None and isinstance(section.logger, TensorBoardLogger):
            # Not in the configuration, whose saved copy would then always write to this folder.
            section.logger._version = version
        return super().instantiate_trainer(**kwargs)

    def after_instantiate_classes(self) -> None:
        """Give the model its configuration, which its checkpoints carry."""
        plain = self._plain(str(self.subcommand), self.config[self.subcommand])
        self.model.config = plain["model"]
        self.model.data_config = plain["data"]

    def before_fit(self) -> None:
        """Load the weights of ``--init_from``, and say what is trained if not all is."""
        section, network = self.config_init[self.subcommand], self.model.network
        said = []
        if section.init_from:
            mismatch = section.init_mismatch
            said = init_from(self.model.denoiser, section.init_from, mismatch=mismatch).report()
        if len(trainable(network)) < len(list(network.parameters())):
            said.append(tally(network))
        if said and self.trainer.is_global_zero:
            print(*said, sep="\n", file=sys.stderr)


class BuiltRun(MRDiffusionCLI):
    """All of a ``fit`` but the training: ``.model``, ``.datamodule``, ``.trainer``."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def _quieten() -> None:
    """Drop Lightning's advertisements and warnings that are its own affair."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(lambda record: "Tip:" not in record.getMessage())
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    # Megabytes of weights, which bf16-mixed keeps in float32 indeed.
    warnings.filterwarnings("ignore", message="Precision bf16-mixed is not supported by the model")
    # Ours are the command line's arguments, with the subcommand and the paths filled in.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")


def _make(kind: type[_CLI], arguments: list[str], *, callbacks: list[Callback]) -> _CLI:
    """Parse, build and, if the kind does so, run."""
    _quieten()
    # Imported by name: mrdiff, on which the data package builds, must work without it.
    data: type[LightningDataModule] = importlib.import_module("datamodules").RestorationData
    jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    return kind(
        MRDiffusion,
        data,
        args=arguments,
        seed_everything_default=0,
        auto_configure_optimizers=False,  # the model takes them: model.optimizer
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"callbacks": callbacks},
        parser_kwargs={**_PARSER, **{name: dict(_PARSER) for name in SUBCOMMANDS}},
    )


def build_run(arguments: list[str]) -> BuiltRun:
    """Build what ``fit`` would train; arguments as of :func:`.arguments.prepare`, ``fit`` first."""
    return _make(BuiltRun, arguments, callbacks=[])


def run_lightning(arguments: list[str]) -> int:
    """Parse ``[subcommand, …]``, build everything and run it.

    The exit status is 130 after a Ctrl+C and 143 after a SIGTERM.
    """
    leave_group_at_exit()
    stop = SaveOnStop()
    try:
        _make(MRDiffusionCLI, arguments, callbacks=[stop])
    except SIGTERMException:
        saved = f"saved {stop.saved}; resume with --ckpt_path last"
        print("stopped:", saved if stop.saved else "nothing was saved yet", file=sys.stderr)
        return 128 + (signal.SIGINT if stop.by_keyboard else signal.SIGTERM)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        message = f"out of memory, try a smaller --data.batch_size: {error}"
        raise CommandError(message) from error
    return 0
