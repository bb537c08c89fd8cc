"""A conditional DDPM of the library diffusers, for :mod:`benchmarks.peers`.

Its ``UNet2DModel`` sees the noisy clean image beside the degraded one, as channels (SR3, Saharia
et al. 2021; Palette, 2022), and predicts the noise of its ``DDPMScheduler``, at the library's
default of 1000 linear steps. It is sampled by the library's ``DDIMScheduler``. Data, clock,
precision, average of the weights and gradient clipping are the recipe's; so is the pixel-unshuffle
in front of the network, without which a step takes seven times ours, and with it twice.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn.functional import mse_loss, pixel_shuffle, pixel_unshuffle

from benchmarks.peers_methods import Restorers
from callbacks import EMA
from datamodules import Sample
from mrdiff.cli.train.arguments import prepare
from mrdiff.cli.train.run import build_run
from mrdiff.networks.blocks.borders import cropped, padded
from mrdiff.solvers.noise import named_noise
from mrdiff.system.devices import pick_precision
from mrdiff.training.budget import TRAINER_OPTIONS, Budget, progress
from mrdiff.training.warmup import WarmupCosine

NFES = (10, 50)
# About as many parameters as the recipes' networks: 1.8 million, 0.7 for noise.
_WIDTHS = {"denoise": (28, 40, 56)}
_PATCH = 2  # pixel-unshuffle
_RATE = 3e-3  # the best of 1e-4, 1e-3 and 3e-3 in a run of a minute and a half
_SPACING = "trailing"  # starts at the last step: better at few steps than the default


class ConditionalDDPM(LightningModule):
    """Trains the library's network to predict the noise of the library's scheduler."""

    def __init__(self, network: UNet2DModel) -> None:
        super().__init__()
        self.network, self.schedule = network, DDPMScheduler()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        clean, eps = 2 * batch["gt"] - 1, torch.randn_like(batch["gt"])
        t = torch.randint(len(self.schedule.betas), (len(clean),), device=clean.device)
        noisy = self.schedule.add_noise(clean, eps, t)
        return mse_loss(predicted(self.network, noisy, batch["lq"], t), eps)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.AdamW(self.parameters(), lr=_RATE)
        scheduler = WarmupCosine(optimizer)
        scheduler.progress = lambda: progress(self.trainer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def predicted(network: UNet2DModel, noisy: Tensor, lq: Tensor, t: Tensor) -> Tensor:
    """The noise in ``[B, 3, H, W]`` in about [-1, 1], given the degraded image in [0, 1]."""
    seen = pixel_unshuffle(torch.cat([noisy, 2 * lq - 1], dim=1), _PATCH)
    return pixel_shuffle(network(seen, t).sample, _PATCH)


def train(task: str, seed: int, minutes: float, folder: Path) -> int:
    """Train for so many minutes; the steps it made."""
    run = build_run(prepare(["--config", f"{task}.yaml", "--data.seed", str(seed)]))
    seed_everything(seed)
    widths = _WIDTHS.get(task, (32, 48, 64, 96))
    network = UNet2DModel(
        in_channels=6 * _PATCH**2,
        out_channels=3 * _PATCH**2,
        layers_per_block=1,
        block_out_channels=widths,
        down_block_types=["DownBlock2D"] * len(widths),
        up_block_types=["UpBlock2D"] * len(widths),
        add_attention=False,  # learnt on patches, it does not carry over to photos
        norm_num_groups=4,
    )
    trainer = Trainer(
        **TRAINER_OPTIONS,
        callbacks=[Budget(minutes=minutes), EMA(decay=0.999)],
        gradient_clip_val=1.0,
        precision=pick_precision("auto"),  # type: ignore[arg-type]
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(ConditionalDDPM(network), datamodule=run.datamodule)
    network.save_pretrained(folder)  # the average, which the module holds after a fit
    return trainer.global_step


@torch.no_grad()
def _restore(sample: Sample, *, network: UNet2DModel, nfe: int) -> Tensor:
    """By DDIM, from the noise of the sample's name; ``[1, 3, H, W]`` in [0, 1]."""
    schedule = DDIMScheduler.from_config(DDPMScheduler().config, timestep_spacing=_SPACING)
    schedule.set_timesteps(nfe)
    halvings = len(network.config["block_out_channels"]) - 1
    lq = padded(sample["lq"][None], _PATCH * 2**halvings, "reflect")
    x = named_noise(0, [sample["name"]])(0, lq.shape)
    for t in schedule.timesteps:
        x = schedule.step(predicted(network, x, lq, t), t, x).prev_sample
    return cropped((x / 2 + 0.5).clamp(0, 1), sample["lq"])


def restorers(folder: Path) -> Restorers:
    """The network's parameters, and by sampler and NFE what restores a sample."""
    network = UNet2DModel.from_pretrained(folder).eval()
    size = sum(parameter.numel() for parameter in network.parameters())
    return size, {("DDIM", nfe): partial(_restore, network=network, nfe=nfe) for nfe in NFES}
