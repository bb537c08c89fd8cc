"""The model that the flags of a command name."""

from __future__ import annotations

import argparse
from collections.abc import Collection

import torch

from mrdiff.checkpoints.reading import Checkpoint, load_model, open_checkpoint
from mrdiff.cli.common.errors import CommandError, one_line
from mrdiff.cli.common.features import PhotoFeatures
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.networks.protocol import takes_mask
from mrdiff.official.daclip import ImageController
from mrdiff.restoration.restorer import Restorer

__all__ = ["check_device", "load_denoiser", "load_restorer"]


def check_device(device: str) -> None:
    """Refuse a device that cannot be used, with the first sentence of torch's reason."""
    try:
        if device != "auto":
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = one_line(error).split(". ")[0]
        raise CommandError(f"--device {device}: {reason}", status=2) from error


def load_denoiser(options: argparse.Namespace, *, device: str) -> tuple[Checkpoint, Denoiser]:
    """``--checkpoint`` and its model.

    Raises:
        CommandError: it or the device cannot be used.
    """
    check_device(device)
    try:
        checkpoint = open_checkpoint(options.checkpoint)
        return checkpoint, load_model(checkpoint, device=device, allow=options.allow_package)
    except ValueError as error:
        raise CommandError(str(error), status=2) from error


def load_restorer(
    options: argparse.Namespace,
    checkpoint: Checkpoint,
    features: PhotoFeatures,
    photos: Collection[str],
    *,
    device: str,
    tile: str,
    seed: int = 0,
    grid: str | None = None,
    temperature: float | None = None,
) -> Restorer:
    """The model with its sampler, task, features and mask by their flags, for photos of these keys.

    Raises:
        ValueError: of our own kinds, for what does not fit the model.
    """
    restorer = Restorer.from_checkpoint(
        checkpoint,
        device=device,
        sampler=options.sampler,
        nfe=options.nfe,
        grid=grid,
        temperature=temperature,
        seed=seed,
        tile=tile,
        task="auto" if options.daclip or options.context else options.task,
        features=ImageController.from_file(options.daclip) if options.daclip else None,
        precision="fp32",  # until the command says more
        allow=options.allow_package,
    )
    features.check(restorer, photos)
    if options.mask is not None and not takes_mask(restorer.denoiser.network):
        raise CommandError("--mask: this model was trained without masks; leave it out", status=2)
    return restorer
