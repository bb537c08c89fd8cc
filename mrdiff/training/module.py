"""The LightningModule that trains a denoiser under any of the three parameterizations."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple, TypedDict

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mrdiff.checkpoints.checks import check_fit, check_meaning, check_optimizer, check_tuning
from mrdiff.checkpoints.description import (
    CONFIG_KEY,
    FORMAT,
    check_description,
    describe,
    describe_denoiser,
)
from mrdiff.checkpoints.reading import network_weights
from mrdiff.diffusion.denoiser import BoundDenoiser, Denoiser
from mrdiff.diffusion.parameterization import Parameterization, ParameterizationName
from mrdiff.diffusion.process import MRProcess
from mrdiff.metrics import RGB, Y
from mrdiff.networks.conditions import check_tasks, classify, judge, make_context, training_context
from mrdiff.networks.protocol import classifier_parameters, known_tasks
from mrdiff.solvers.noise import keyed_generator, named_noise
from mrdiff.solvers.presets import make_sampler
from mrdiff.solvers.run import Sampler
from mrdiff.training.freezing import freeze as freeze_parameters
from mrdiff.training.freezing import trainable
from mrdiff.training.lora import LoRA, add_adapters
from mrdiff.training.losses import L1, stratified_times
from mrdiff.training.objective import Objective, ScaledTarget
from mrdiff.training.optim import WarmupCosine, default_optimizer
from mrdiff.tuning.checkpoint_sampler import SAMPLER_KEY, describe_sampler


class Batch(TypedDict, total=False):
    """What a dataloader yields: images ``[B, C, H, W]`` in [0, 1]; gt is absent at predict."""

    lq: Tensor
    gt: Tensor
    name: list[str]
    degradation: Tensor  # ``[B]`` int64: indices of the network's tasks
    mask: Tensor  # ``[B, 1, H, W]``: 0 in holes, else 1


class _Factories(NamedTuple):
    """Shared by copies of a module, as an average is.

    Behind configured ones stands the command line, which cannot be copied once processes talk.
    """

    optimizer: OptimizerCallable
    scheduler: LRSchedulerCallable

    def __deepcopy__(self, memo: dict[int, Any]) -> _Factories:
        return self


class MRDiffusion(pl.LightningModule):
    """Trains a network to undo a degradation, and restores with MR Sampler.

    Args:
        network: ``forward(x, mu, t, context=None)``.
        process: the mean-reverting process.
        parameterization: what the network predicts: ``data``, ``noise`` or ``velocity``.
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
        compile: compile the network in place when training starts.
    """

    # The resolved ``model`` and ``data`` sections of the run, set by the command line; a module
    # made in Python describes itself.
    config: dict[str, Any] | None = None
    data_config: dict[str, Any] | None = None

    def __init__(
        self,
        network: nn.Module,
        process: MRProcess = MRProcess(),  # noqa: B008  (frozen)
        parameterization: ParameterizationName = "data",
        *,
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
        compile: bool = False,
    ) -> None:
        super().__init__()
        if not time_power > 0:
            raise ValueError(f"time_power must be positive, got {time_power}")
        if time_steps is not None and time_steps < 1:
            raise ValueError(f"time_steps must be at least 1, got {time_steps}")
        if freeze and lora is not None:
            raise ValueError("model.lora freezes all but its adapters: leave model.freeze out")
        # Before anything is copied, averaged or optimised; old weights go beneath the adapters.
        freeze_parameters(network, freeze)
        if lora is not None:
            add_adapters(network, lora)
        if channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        target = Parameterization.named(parameterization)
        self.denoiser = Denoiser(network, process, target, data_std=data_std)
        self.loss = loss if loss is not None else L1()
        self.objective = objective if objective is not None else ScaledTarget()
        self.sampler = sampler if sampler is not None else make_sampler()
        self._sampler_options = None if sampler is None else describe_sampler(sampler)
        self._factories = _Factories(optimizer, lr_scheduler)
        self.time_power, self.time_steps = time_power, time_steps
        self._compile_network = compile
        self._tuning = {"freeze": list(freeze), "lora": lora and asdict(lora)}

    @property
    def network(self) -> nn.Module:
        return self.denoiser.network

    @property
    def process(self) -> MRProcess:
        return self.denoiser.process

    @property
    def parameterization(self) -> Parameterization:
        """What the network predicts."""
        return self.denoiser.parameterization

    def setup(self, stage: str) -> None:
        """Raise TaskError if the tasks of the data and the network differ."""
        given = getattr(getattr(self.trainer, "datamodule", None), "tasks", None)
        check_tasks(self.network, given or ())
        if stage == "fit" and given == () and known_tasks(self.network):
            # Nothing would teach it, and processes that train together refuse a loss that leaves
            # some parameters out.
            for parameter in classifier_parameters(self.network):
                parameter.requires_grad_(False)

    def on_fit_start(self) -> None:
        self._checkpoint_settings()  # a model that cannot be saved fails here, not later
        if self._compile_network:
            # In place: torch.compile(network) would put `_orig_mod.` into checkpoint keys.
            self.network.compile()

    def _noised_loss(
        self, batch: Batch, generator: torch.Generator, logits: Tensor | None, *, blind: float
    ) -> Tensor:
        """The loss of denoising, given the logits of the tasks if the network knows several."""
        lq, gt = batch["lq"], batch["gt"]
        t = stratified_times(len(gt), generator, power=self.time_power, steps=self.time_steps)
        eps = torch.randn(gt.shape, generator=generator, device=gt.device, dtype=gt.dtype)
        context = training_context(self.network, batch, logits, blind=blind, generator=generator)
        loss: Tensor = self.loss(*self.objective(self.denoiser, gt, lq, t, eps, context))
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of denoising at stratified times, and of classifying the task."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        step = self.trainer.fit_loop.total_batch_idx
        generator = keyed_generator(self.device, seed, self.global_rank, step)
        logits = classify(self.network, batch["lq"]) if known_tasks(self.network) else None
        loss = self._noised_loss(batch, generator, logits, blind=0.5)
        size = len(batch["lq"])
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        if logits is not None and "degradation" in batch:
            # The classifier shares no weight and no gradient with the rest: the sum trains both,
            # and the factor only keeps the clipped gradient the denoiser's.
            task_loss = cross_entropy(logits, batch["degradation"])
            self.log("train/task_loss", task_loss, batch_size=size)
            loss = loss + 0.1 * task_loss
        return loss

    def _evaluation_loss(self, stage: str, batch: Batch, batch_idx: int) -> None:
        """The training loss at fixed times and noise, the task being judged by the network."""
        # The same at every validation, so that the curve is comparable.
        generator = keyed_generator(self.device, batch_idx)
        # As in use: large images are judged by windows.
        logits = judge(self.network, batch["lq"]).log() if known_tasks(self.network) else None
        loss = self._noised_loss(batch, generator, logits, blind=1.0)
        log = partial(self.log, on_step=False, on_epoch=True, sync_dist=True)
        log(f"{stage}/loss", loss, batch_size=len(batch["lq"]))
        if logits is not None and "degradation" in batch:
            right = (logits.argmax(dim=1) == batch["degradation"]).float().mean()
            log(f"{stage}/task_accuracy", right, batch_size=len(batch["lq"]))

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

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self._factories.optimizer(trainable(self.network))
        scheduler = self._factories.scheduler(optimizer)
        if isinstance(scheduler, WarmupCosine) and scheduler.total is None:
            steps = self.trainer.estimated_stepping_batches
            # A run that only time limits has no known length: the rate stays at its peak.
            scheduler.total = int(steps) if math.isfinite(steps) else None
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _checkpoint_settings(self) -> dict[str, Any]:
        """The description that makes a checkpoint complete without its config file.

        Raises:
            TypeError: something in it cannot be written.
        """
        if self.config is None:
            model = describe_denoiser(self.denoiser)
        else:  # the live process: a configuration may name a function that makes the schedule
            model = {**self.config, "process": self.process}
        settings = {
            "format": FORMAT,
            "model": {**model, **self._tuning},
            "data": self.data_config,
            "metrics": [protocol.describe() for protocol in (RGB, Y)],
        }
        if self._sampler_options is not None:
            settings[SAMPLER_KEY] = self._sampler_options
        described: dict[str, Any] = describe(settings)
        return described

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self._checkpoint_settings()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse, before anything is loaded, weights of another meaning or another network."""
        config: Any = checkpoint.get(CONFIG_KEY)
        where = "the checkpoint"
        check_description(config)
        check_meaning(config, self.denoiser, where)
        check_tuning(config, self._tuning, where)
        check_fit(network_weights(checkpoint), self.network, where)
        if self._trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            check_optimizer(config, (self.config or {}).get("optimizer"), where)
