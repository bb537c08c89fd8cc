"""The LightningModule that trains a denoiser on any path, under any parameterization."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from mrdiff.checkpoints.checks import check_optimizer
from mrdiff.checkpoints.description import CONFIG_KEY, CheckpointError
from mrdiff.checkpoints.reading import Checkpoint, load_model
from mrdiff.checkpoints.schema import check_description
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization, ParameterizationName
from mrdiff.diffusion.path import GaussianPath
from mrdiff.diffusion.process import MRProcess
from mrdiff.diffusion.wrappers import BoundDenoiser
from mrdiff.networks.conditions import check_degradation, check_tasks, judge, make_context
from mrdiff.networks.protocol import classifier_parameters, known_tasks
from mrdiff.solvers.noise import named_noise
from mrdiff.solvers.presets import make_sampler
from mrdiff.solvers.run import Sampler, begin
from mrdiff.training.budget import progress
from mrdiff.training.checkpoint import check_loaded, settings
from mrdiff.training.checks import (
    check_call,
    check_compared,
    check_loss,
    check_noise,
    check_precision,
    check_times,
)
from mrdiff.training.compiling import Compile, CompiledStep, Losses, is_worth_it
from mrdiff.training.factories import Factories, schedule_settings, step_plateaus
from mrdiff.training.freezing import freeze as freeze_parameters
from mrdiff.training.freezing import trainable
from mrdiff.training.lora import LoRA, add_adapters
from mrdiff.training.losses import L1
from mrdiff.training.objective import Objective, ScaledTarget
from mrdiff.training.optim import default_optimizer
from mrdiff.training.resuming import Resumption, keep_patience
from mrdiff.training.saving import save_whole
from mrdiff.training.step import Batch, Drawn, Parts, denoising_loss, draw, training_losses
from mrdiff.training.warmup import WarmupCosine
from mrdiff.tuning.checkpoint_sampler import describe_sampler


class MRDiffusion(pl.LightningModule):
    """Trains a network to undo a degradation, and restores with MR Sampler.

    Args:
        network: ``forward(x, mu, t, context=None)``.
        process: the path from the clean to the degraded image.
        parameterization: what the network predicts: ``data``, ``noise``, ``velocity``,
            ``preconditioned`` or ``boundary``.
        start: a trained checkpoint or exported folder, whose x0 of one call, without noise, takes
            the degraded image's place on the path; it stays as it is.
        loss: ``(out, target) -> scalar`` on what the objective compares.
        objective: which two images those are; None for the network's output and its scaled target.
        data_std: standard deviation assumed for x0 - mu, in image units.
        time_power: training times have the density ``time_power t^(time_power - 1)``.
        time_steps: train at the times k / time_steps alone, k = 1..time_steps; None for all times.
        optimizer: parameters -> optimizer.
        lr_scheduler: optimizer -> scheduler, stepped at every optimizer step.
        sampler: of predict; also written into the checkpoints, as their default sampler.
        freeze: names or patterns of the network's parameters that stay as they are.
        lora: adapters to train instead of all weights of the network.
        channels_last: memory format of the network.
        compile: whether the step from the batch to its loss is compiled; ``auto``: on CUDA, unless
            the run is short, and if torch can.
    """

    # The resolved ``model`` and ``data`` sections of the run, set by the command line; a module
    # made in Python describes itself.
    config: dict[str, Any] | None = None
    data_config: dict[str, Any] | None = None

    def __init__(
        self,
        network: nn.Module,
        process: GaussianPath = MRProcess(),  # noqa: B008  (frozen)
        parameterization: ParameterizationName = "data",
        *,
        start: str | None = None,
        loss: nn.Module | None = None,
        objective: Objective | None = None,
        data_std: float = 0.1,
        time_power: float = 1.0,
        time_steps: int | None = None,
        optimizer: OptimizerCallable = default_optimizer,
        lr_scheduler: LRSchedulerCallable = WarmupCosine,
        sampler: Sampler | None = None,
        freeze: Sequence[str] = (),
        lora: LoRA | None = None,
        channels_last: bool = True,
        compile: Compile = "auto",
    ) -> None:
        super().__init__()
        check_times(time_power, time_steps)
        if freeze and lora is not None:
            raise ValueError("model.lora freezes all but its adapters: leave model.freeze out")
        check_call(network, ("x", "mu", "t", "context"), key="model.network")
        # Before anything is copied, averaged or optimised; old weights go beneath the adapters.
        freeze_parameters(network, freeze)
        if lora is not None:
            add_adapters(network, lora)
        if channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.objective = objective if objective is not None else ScaledTarget()
        self.objective.check(process)
        target = self.objective.parameterization(Parameterization.named(parameterization))
        check_noise(process, target)
        self.denoiser = Denoiser(network, process, target, data_std=data_std)
        if start is not None:
            self.start_from(start)
        self.loss = loss if loss is not None else L1()
        check_compared(self.loss, self.objective)
        self.sampler = sampler if sampler is not None else make_sampler()
        self.sampler.check(process)  # a grid file of another process is refused
        self.sampler_options = None if sampler is None else describe_sampler(sampler)
        given = optimizer or default_optimizer, lr_scheduler or WarmupCosine  # type: ignore[truthy-function]
        self._factories = Factories(*given)  # a configuration may say null
        self.time_power, self.time_steps = time_power, time_steps
        self._compile = compile
        self._step_losses: Callable[[Parts, Batch, Drawn], Losses] = training_losses
        self._resumption: Resumption | None = None
        self.tuning = {"freeze": list(freeze), "lora": lora and asdict(lora)}

    def start_from(self, source: str | Checkpoint, *, allow: Sequence[str] = ()) -> None:
        """Begin the path with a trained model; arguments as of :func:`mrdiff.load_model`.

        Raises:
            ValueError: it is no checkpoint, or does not fit: see :meth:`.Denoiser.start_from`.
        """
        # Whose network the run already uses is trusted in the checkpoint too.
        home = type(self.network).__module__.partition(".")[0]
        try:
            start = load_model(source, "cpu", allow=[home, *allow])
        except CheckpointError as error:
            raise CheckpointError(f"model.start: {error}") from error
        self.denoiser.start_from(start)

    @property
    def network(self) -> nn.Module:
        return self.denoiser.network

    @property
    def process(self) -> GaussianPath:
        return self.denoiser.process

    @property
    def parameterization(self) -> Parameterization:
        """What the network predicts."""
        return self.denoiser.parameterization

    def setup(self, stage: str) -> None:
        """Refuse weights of 16 bits; raise TaskError if the tasks of data and network differ."""
        check_precision(self.trainer.precision)
        save_whole(self.trainer)
        given = getattr(getattr(self.trainer, "datamodule", None), "tasks", None)
        check_tasks(self.network, given or ())
        if stage == "fit" and given == () and known_tasks(self.network):
            # Nothing would teach it, and processes that train together refuse a loss that leaves
            # some parameters out.
            for parameter in classifier_parameters(self.network):
                parameter.requires_grad_(False)

    def logged_keys(self) -> list[str]:
        """What a run that validates logs, for those who follow a metric."""
        tasks = ["train/task_loss", "val/task_accuracy"] if known_tasks(self.network) else []
        return ["train/loss", "val/loss", *tasks]

    def on_fit_start(self) -> None:
        check_description(settings(self))  # a model that cannot be saved fails here, not later
        self.objective.begin(self.denoiser)

    def on_fit_end(self) -> None:
        self.objective.end()

    def on_train_start(self) -> None:
        self._step_losses = training_losses
        if is_worth_it(self._compile, self.trainer):
            required = self._compile is True
            self._step_losses = CompiledStep(training_losses, self.trainer, required=required)

    @property
    def _parts(self) -> Parts:
        return Parts(self.denoiser, self.loss, self.objective)

    def _drawn(self, batch: Batch, *key: int | str, blind: float, progress: float) -> Drawn:
        """What the key alone decides, ``blind`` being a share of the images."""
        if "degradation" in batch:
            check_degradation(batch["degradation"], self.network)
        times = partial(self.objective.times, self.denoiser, progress=progress)
        power, steps = self.time_power, self.time_steps
        return draw(batch, *key, blind=blind, power=power, steps=steps, times=times)

    @torch.no_grad()
    def _begun(self, batch: Batch) -> Batch:
        """The batch with where its path starts, if not at the degraded images."""
        if self.denoiser.start is None:
            return batch
        context = {"mask": batch["mask"]} if "mask" in batch else None
        return {**batch, "mu": begin(BoundDenoiser(self.denoiser, context), batch["lq"])}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of denoising at stratified times, and of classifying the task."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        step = self.trainer.fit_loop.total_batch_idx
        gone = progress(self.trainer)
        drawn = self._drawn(batch, seed, self.global_rank, step, blind=0.5, progress=gone)
        loss, task_loss = self._step_losses(self._parts, self._begun(batch), drawn)
        check_loss(self.loss, loss)
        size = len(batch["lq"])
        self.log("train/loss", loss, batch_size=size)
        if task_loss is None:
            return loss
        # The classifier shares no weight and no gradient with the rest: the sum trains both, and
        # the factor only keeps the clipped gradient the denoiser's.
        self.log("train/task_loss", task_loss, batch_size=size)
        return loss + 0.1 * task_loss

    def on_train_batch_end(self, *_: Any) -> None:
        """The bar has the loss of logging steps: logged to it, it is waited for at every step."""
        if self.trainer._logger_connector.should_update_logs:
            loss = self.trainer.callback_metrics.get("train/loss", math.nan)
            self.trainer.progress_bar_metrics["train/loss"] = float(loss)

    def _evaluation_loss(self, stage: str, batch: Batch, batch_idx: int) -> None:
        """The training loss at fixed times and noise, the task being judged by the network."""
        # The same at every validation and in any process, so that the curve is comparable.
        drawn = self._drawn(batch, *batch["name"], blind=1.0, progress=1.0)
        # As in use: large images are judged by windows.
        logits = judge(self.network, batch["lq"]).log() if known_tasks(self.network) else None
        loss = denoising_loss(self._parts, self._begun(batch), drawn, logits)
        check_loss(self.loss, loss)
        # Lightning divides the sum of the sizes by the number of processes, as an integer.
        size = len(batch["lq"]) * self.trainer.world_size
        log = partial(self.log, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        log(f"{stage}/loss", loss)
        if logits is not None and "degradation" in batch:
            right = (logits.argmax(dim=1) == batch["degradation"]).float().mean()
            log(f"{stage}/task_accuracy", right)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_loss("val", batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluation_loss("test", batch, batch_idx)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Restore: ``{"name": [B], "restored": [B, C, H, W] in [0, 1]}``.

        The noise of an image depends on its name alone.
        """
        noise = named_noise(0, batch["name"])
        context = make_context(self.network, batch["lq"], mask=batch.get("mask"))
        restored = self.sampler(BoundDenoiser(self.denoiser, context), batch["lq"], noise=noise)
        return {"name": batch["name"], "restored": restored.clamp(0, 1)}

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """For all weights that learn, those of the loss included."""
        optimizer, scheduler = self._factories.make(trainable(self), self.trainer)

        def keep_options(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any] | None:
            found, self._resumption = self._resumption, None
            return None if found is None else found.options(scheduler, optimizer, state)

        optimizer.register_load_state_dict_pre_hook(keep_options)
        return OptimizerLRSchedulerConfig(
            optimizer=optimizer, lr_scheduler=schedule_settings(scheduler)
        )

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            step_plateaus(self.trainer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = settings(self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse, before anything is loaded, weights of another meaning or another network."""
        check_loaded(self, checkpoint)
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            sections = self.config or {}, checkpoint[CONFIG_KEY]["model"]
            check_optimizer(checkpoint[CONFIG_KEY], sections[0].get("optimizer"), "the checkpoint")
            ours, theirs = (section.get("lr_scheduler") for section in sections)
            self._resumption = Resumption(checkpoint, ours=ours, theirs=theirs)
            keep_patience(self.trainer.early_stopping_callbacks, checkpoint["callbacks"])
