"""``mrdiff train``: Lightning's command line with short errors and safe resumes.

The configuration is read in ``omegaconf+`` mode: interpolations are resolved once, after all
files and overrides are merged. A numerical precision left out (null) is chosen for the machine.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import torch
import yaml
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from mrdiff.checkpoints.description import CheckpointError
from mrdiff.checkpoints.reading import Checkpoint
from mrdiff.cli.common.errors import CommandError, is_expected
from mrdiff.cli.train.arguments import SUBCOMMANDS
from mrdiff.cli.train.checks import check_run
from mrdiff.cli.train.continuing import Continuing
from mrdiff.cli.train.messages import explain, explain_failure, quieten
from mrdiff.cli.train.resume import (
    find_checkpoint,
    go_on_beside,
    last_checkpoints,
    open_start,
)
from mrdiff.cli.train.saved_config import SaveConfig, keep_metrics
from mrdiff.cli.train.slurm import checkpoint_of_job, job_id, refuse_strangers
from mrdiff.cli.train.start import (
    STAND_IN,
    Start,
    add_options,
    architecture,
    find_start,
    refuse_two_ends,
    without_printing,
)
from mrdiff.cli.train.stop import StopBySignal
from mrdiff.system.devices import leave_group_at_exit, pick_precision
from mrdiff.system.memory import is_out_of_memory
from mrdiff.training.budget import TRAINER_OPTIONS, Budget, planned_validations
from mrdiff.training.checks import check_precision
from mrdiff.training.freezing import tally, trainable
from mrdiff.training.module import MRDiffusion
from mrdiff.training.transfer import init_from

# For the main parser too: it is the one that resolves ``${}`` after everything is merged.
_PARSER = {"parser_mode": "omegaconf+"}

_CLI = TypeVar("_CLI", bound=LightningCLI)


class MRDiffusionCLI(LightningCLI):
    """LightningCLI whose errors are raised, whose checkpoints exist, and whose flags win."""

    _found: Checkpoint | None = None  # what the run starts from
    _packages: tuple[str, ...] = ()  # whose classes a checkpoint may name

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
            start = self._of_job(parser, arguments, start)
            self._found = found = self._checkpoint(parser, arguments, start)
            self._packages = start.packages
            if found is not None:
                arguments[1:1] = ["--config", architecture(start, found)]
            if found is not None and arguments[0] == "fit":  # what ${init_from} is
                arguments += ["--init_from", str(found.path) if start.init_from else "null"]
            super().parse_arguments(parser, arguments)
        except CheckpointError:
            raise
        except (jsonargparse.ArgumentError, ModuleNotFoundError, ValueError, TypeError) as error:
            raise CommandError(explain(error, self._keys()), status=2) from error
        section = self.config[self.config.subcommand]
        if self.config.subcommand == "fit":
            refuse_two_ends(arguments, section)
        section.base = None  # they were merged: the saved copy of the configuration stands alone
        path = found and str(found.path)
        section.ckpt_path = start.ckpt_path and path
        section.init_from = start.init_from and path

    def _checkpoint(
        self, parser: LightningArgumentParser, arguments: list[str], start: Start
    ) -> Checkpoint | None:
        """The checkpoint to start from; None for a run that starts from nothing."""
        value = start.init_from or start.ckpt_path
        if value is None:
            return None
        trainer = self._trainer_section(parser, arguments) if value == "last" else {}
        return open_start(find_checkpoint(value, trainer))

    def _of_job(self, parser: LightningArgumentParser, arguments: list[str], start: Start) -> Start:
        """Resume unasked what SLURM runs again."""
        if arguments[0] != "fit" or start.ckpt_path or job_id() is None:
            return start
        found = checkpoint_of_job(last_checkpoints(self._trainer_section(parser, arguments)))
        return start if found is None else replace(start, ckpt_path=str(found), init_from=None)

    def _trainer_section(
        self, parser: LightningArgumentParser, arguments: list[str]
    ) -> dict[str, Any]:
        """The ``trainer`` of arguments that lack what a checkpoint will say of the model."""
        command, *rest = without_printing(arguments)
        config = parser.parse_args([command, "--config", STAND_IN, *rest])
        section: dict[str, Any] = self._plain(command, config[command])["trainer"]
        return section

    def _keys(self) -> list[str]:
        """Every dotted key of the fit parser, for a did-you-mean."""
        options = [o for a in self._parser("fit")._actions for o in a.option_strings]
        return [option.removeprefix("--") for option in options if option.startswith("--")]

    def instantiate_classes(self) -> None:
        """Build everything; what a constructor refuses is a mistake in the configuration."""
        section = self.config[self.config.subcommand]
        given, section.model.start = section.model.start, None
        carried = self._found and self._found.start
        # A resumed run keeps its own: the file that it began with may be gone.
        source = carried if carried and (section.ckpt_path or given is None) else given
        try:
            super().instantiate_classes()
            if source is not None:
                self.model.start_from(source, allow=self._packages)
            section.model.start = given
        except (MisconfigurationException, ModuleNotFoundError, ValueError, TypeError) as error:
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

    def _plain(self, command: str, config: Any) -> dict[str, Any]:
        """The resolved configuration of a subcommand as nested dicts, lists and scalars."""
        dumped = self._parser(command).dump(config, skip_unset=False, skip_validation=True)
        plain: dict[str, Any] = yaml.safe_load(dumped)
        return plain

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Choose the precision when the configuration leaves it open, and let ``last.ckpt`` be."""
        section = self.config_init[self.subcommand].trainer
        if section.precision is None:
            kwargs["precision"] = pick_precision(str(section.accelerator))
        kwargs["callbacks"] = self._callbacks(section)
        minutes = self.config[self.subcommand].minutes
        if self.subcommand == "fit" and minutes is not None and not section.fast_dev_run:
            # First: what the others write knows whether the run goes on.
            budget = Budget(minutes=minutes, validations=planned_validations(section))
            kwargs |= TRAINER_OPTIONS | {"callbacks": [budget, *kwargs["callbacks"]]}
        path = self.config[self.subcommand].get("ckpt_path")
        if self.subcommand == "fit" and path:
            plain = self._plain(self.subcommand, self.config[self.subcommand])["trainer"]
            kwargs["logger"] = go_on_beside(Path(path), plain, section.logger, kwargs["callbacks"])
        trainer = super().instantiate_trainer(**kwargs)
        keep_metrics(trainer)
        if self.subcommand == "fit" and not path:
            refuse_strangers(Path(trainer.default_root_dir))
        return trainer

    def _callbacks(self, section: Any) -> list[Callback]:
        """Those of the configuration, and the one that keeps ``last.ckpt``, its latest mention."""
        given = section.callbacks or []
        callbacks = list(given) if isinstance(given, list) else [given]
        # Imported by name: a package above this one.
        kind = importlib.import_module("callbacks").SaveLast
        last = [each for each in callbacks if isinstance(each, kind)]
        if not last and section.enable_checkpointing is not False:
            last = [kind()]
        return [each for each in callbacks if not isinstance(each, kind)] + last[-1:]

    def after_instantiate_classes(self) -> None:
        """Give the model its configuration, which its checkpoints carry; look at all of it."""
        plain = self._plain(str(self.subcommand), self.config[self.subcommand])
        self.model.config = plain["model"]
        self.model.data_config = plain["data"]
        # Before weights are loaded, which Lightning would round in a model not yet of 64 bits.
        check_precision(self.trainer.precision)
        self.trainer.precision_plugin.convert_module(self.model)
        if self.subcommand == "fit":
            schedule = plain["model"].get("lr_scheduler")
            check_run(self.trainer, self.model, self.datamodule, schedule)

    def before_fit(self) -> None:
        """Load the weights of ``--init_from``, and say what is trained if not all is."""
        section, network = self.config_init[self.subcommand], self.model.network
        said = []
        if section.init_from:
            mismatch = section.init_mismatch
            said = init_from(self.model.denoiser, section.init_from, mismatch=mismatch).report()
        if len(trainable(network)) < len(list(network.parameters())):
            said.append(tally(network))
        if weights := trainable(self.model.loss):
            count = sum(weight.numel() for weight in weights)
            said.append(f"note: model.loss is trained as well, {count:,} parameters")
        if said and self.trainer.is_global_zero:
            print(*said, sep="\n", file=sys.stderr)

    def after_fit(self) -> None:
        """Say where the model is, and how good."""
        for each in self.trainer.checkpoint_callbacks if self.trainer.is_global_zero else ():
            if isinstance(each, ModelCheckpoint) and each.monitor and each.best_model_path:
                path, here = Path(each.best_model_path), Path.cwd()
                name = path.relative_to(here) if path.is_relative_to(here) else path
                print(f"{name}: {each.monitor} {each.best_model_score:.4g}")


class BuiltRun(MRDiffusionCLI):
    """All of a ``fit`` but the training: ``.model``, ``.datamodule``, ``.trainer``."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def _make(kind: type[_CLI], arguments: list[str], *, callbacks: list[Callback]) -> _CLI:
    """Parse, build and, if the kind does so, run."""
    quieten()
    # Imported by name: mrdiff, on which the data package builds, must work without it.
    data: type[LightningDataModule] = importlib.import_module("datamodules").RestorationData
    # Defaults of Lightning's own classes, which configurations hold and YAML does not know.
    yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, x: dumper.represent_data(x.value))
    jsonargparse.typing.register_type(torch.device)
    jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    return kind(
        MRDiffusion,
        data,
        args=arguments,
        seed_everything_default=0,
        auto_configure_optimizers=False,  # the model takes them: model.optimizer
        save_config_callback=SaveConfig,
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
    stop = StopBySignal()
    try:
        _make(MRDiffusionCLI, arguments, callbacks=[stop, Continuing()])
    except SIGTERMException:
        return stop.finish()
    except Exception as error:
        if is_out_of_memory(error):
            message = f"out of memory, try a smaller --data.batch_size: {error}"
            raise CommandError(message) from error
        line = None if is_expected(error) else explain_failure(error)
        if line is None:
            raise
        raise CommandError(line) from error
    return 0
