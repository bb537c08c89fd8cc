"""A checkpoint of a tiny untrained network and photos for it, for tests of the commands."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mrdiff import MRProcess
from mrdiff.checkpoints.description import describe_denoiser
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.networks.unet import UNet


def write_tiny_checkpoint(path: Path, *, identity: bool = False, **options: Any) -> Path:
    """Random weights, so that the network changes its input and samplers differ.

    Or those of a new network, which predicts that the clean image is the degraded one. Further
    options are the network's.
    """
    torch.manual_seed(0)
    network = UNet(widths=(4, 8), encoder=(1,), middle=1, decoder=(1,), time_width=8, **options)
    for parameter in () if identity else network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    denoiser = Denoiser(network, MRProcess(), Parameterization.named("data"))
    weights = {f"denoiser.{key}": value for key, value in denoiser.state_dict().items()}
    config = {"format": 1, "model": describe_denoiser(denoiser), "data": None}
    torch.save({"state_dict": weights, "mrdiff": config, "global_step": 7}, path)
    return path


# Of a run on the pairs that are written to the folder ``data`` of its working directory.
PAIRS_CONFIG = """\
data:
  batch_size: 2
  num_workers: 0
  train:
    class_path: datamodules.PairedFolder
    init_args: {lq: data/lq, gt: data/gt, patch_size: 8}
  val:
    class_path: datamodules.PairedFolder
    init_args: {lq: data/lq, gt: data/gt}
"""


def write_pairs(folder: Path, names: Iterable[str]) -> None:
    """Noisy photos of 40 x 48 px under ``lq`` and the clean ones, as PNG, under ``gt``."""
    random = np.random.default_rng(0)
    for name in names:
        gt = np.kron(random.integers(0, 255, (5, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        lq = np.clip(gt + random.normal(0, 30, gt.shape), 0, 255).astype(np.uint8)
        for kind, pixels in (("lq", lq), ("gt", gt)):
            path = folder / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path if kind == "lq" else path.with_suffix(".png"))
