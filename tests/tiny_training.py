"""A network, images and a Trainer small enough to train in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mrdiff import MRDiffusion
from mrdiff.networks import UNet

SIZE = 32


class TinyNetwork(nn.Module):
    """Two convolutions with a batch norm between them, so that there are buffers of all kinds."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Conv2d(6, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(
        self, x: Tensor, mu: Tensor, t: Tensor, context: dict[str, Tensor] | None = None
    ) -> Tensor:
        hidden = self.first(torch.cat([4 * (x - mu), 2 * mu - 1], dim=1))
        return self.last(self.norm(hidden).relu() + t[:, None, None, None])


class TinyImages(Dataset[dict[str, Any]]):
    """Smooth images with noise on them; the same at every access."""

    def __init__(self, count: int = 8, size: int = SIZE) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        coarse = torch.rand(1, 3, 4, 4, generator=generator)
        gt = nn.functional.interpolate(coarse, (self.size, self.size), mode="bilinear")[0]
        noise = 0.2 * torch.randn(gt.shape, generator=generator)
        return {"lq": (gt + noise).clamp(0, 1), "gt": gt, "name": f"tiny/{index}"}


def loader(*, count: int = 8, batch_size: int = 4, size: int = SIZE) -> DataLoader[dict[str, Any]]:
    return DataLoader(TinyImages(count, size), batch_size=batch_size)


def tiny_module() -> MRDiffusion:
    torch.manual_seed(0)
    return MRDiffusion(
        TinyNetwork(), optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05)
    )


def tiny_trainer(folder: Path, *callbacks: Callback, **options: Any) -> pl.Trainer:
    defaults: dict[str, Any] = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any("Checkpoint" in type(c).__name__ for c in callbacks),
    }
    return pl.Trainer(default_root_dir=folder, callbacks=list(callbacks), **{**defaults, **options})


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters."""
    return {name: value.detach().clone() for name, value in module.named_parameters()}


class Pairs(Dataset[dict[str, Any]]):
    """Bright squares and the same under a fixed stripe."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        gt = torch.rand(3, 1, 1, generator=generator).expand(3, 16, 16).clone()
        lq = gt.clone()
        lq[:, :, 4:8] = 1.0
        return {"lq": lq, "gt": gt, "name": f"pair{index}"}


def tiny_unet() -> UNet:
    return UNet(widths=(8, 16), encoder=(1,), decoder=(1,), middle=1, time_width=16)


def trainer(folder: Path, steps: int) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder,
        max_steps=steps,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )


def trained(folder: Path, steps: int = 20, **options: Any) -> tuple[MRDiffusion, Path]:
    pl.seed_everything(0, verbose=False)
    module = MRDiffusion(options.pop("network", None) or tiny_unet(), **options)
    fit = trainer(folder, steps)
    fit.fit(module, DataLoader(Pairs(), batch_size=8))
    fit.save_checkpoint(folder / "model.ckpt")
    return module, folder / "model.ckpt"
