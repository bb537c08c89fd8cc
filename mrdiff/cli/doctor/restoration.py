"""The largest validation image, restored as validation will: its time and memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mrdiff.cli.doctor.files import Folder
from mrdiff.cli.doctor.scan import Picture
from mrdiff.cli.train.run import BuiltRun
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.wrappers import AutocastDenoiser, BoundDenoiser
from mrdiff.networks.conditions import make_context
from mrdiff.photo import centre_crop, read_rgb
from mrdiff.restoration.restorer import Restorer
from mrdiff.solvers.noise import named_noise
from mrdiff.solvers.presets import make_sampler
from mrdiff.system.memory import forget_peak, limited, peak

_NFE = 5
_SAMPLER = "mr-ode-2"
_LOOKED_AT = 32  # generated images among which the largest is sought


@runtime_checkable
class Settings(Protocol):
    """How ``callbacks.SamplingValidation`` restores."""

    samplers: Sequence[str]
    nfes: Sequence[int]
    max_images: int
    crop: int | None
    batch_size: int


@dataclass(frozen=True)
class Restored:
    """What restoring an image showed."""

    name: str
    width: int
    height: int
    sampler: str
    nfe: int
    seconds: float
    memory: int | None  # the most bytes used
    validation: float  # estimated seconds of a whole one, metrics and pictures left out


def find_settings(trainer: Any) -> Settings | None:
    """The callback that validates by sampling, if there is one; the trial takes it away."""
    return next((c for c in trainer.callbacks if isinstance(c, Settings)), None)


def largest_image(
    dataset: Any, folders: Sequence[Folder], pictures: Mapping[Path, Picture]
) -> tuple[str, Tensor]:
    """(name, degraded image ``[3, H, W]``) of the validation set, as its loader gives it.

    Of a set without degraded files the clean image stands in: only its size matters here.

    Raises:
        ValueError: of the data package or of :mod:`mrdiff.photo`, for images that are unreadable.
    """
    best: tuple[int, Path, int | None] | None = None
    for folder in folders:
        if "val" in folder.roles:
            for of in folder.files:
                picture, crop = pictures[of.lq or of.gt or of.mask], folder.source.crop_size
                area = min(picture.width, crop or 2**31) * min(picture.height, crop or 2**31)
                if not picture.problem and (best is None or area > best[0]):
                    best = (area, picture.path, crop)
    if best is not None:
        return best[1].name, centre_crop(read_rgb(best[1]), best[2])
    samples = [dataset[index] for index in range(min(len(dataset), _LOOKED_AT))]
    sample = max(samples, key=lambda sample: sample["lq"].numel())
    return sample["name"], sample["lq"]


def _timed(run: BuiltRun, mu: Tensor, name: str, sampler: str, nfe: int) -> float:
    """Seconds that restoring takes, for each image of a batch."""
    denoiser: Denoiser = run.model.denoiser
    bound = BoundDenoiser(
        AutocastDenoiser(denoiser, run.trainer.precision_plugin.forward_context),
        make_context(denoiser.network, mu),
    )
    start = time.perf_counter()
    restored = make_sampler(sampler, nfe=nfe)(bound, mu, noise=named_noise(0, [name] * len(mu)))
    float(restored.sum())  # waits for a GPU
    return (time.perf_counter() - start) / len(mu)


@torch.no_grad()
def restore_largest(run: BuiltRun, name: str, lq: Tensor, settings: Settings | None) -> Restored:
    """Restore ``lq`` ``[3, H, W]`` as validation does, or, without settings, as ``sample.py``."""
    data: Any = run.datamodule
    device = run.trainer.strategy.root_device
    run.model.to(device).eval()
    whole = lq.to(device).expand(data.val_batch_size, -1, -1, -1)
    sampler, nfe, image = _SAMPLER, _NFE, whole[:1]
    if settings is not None:
        sampler = settings.samplers[0]
        nfe = _NFE if _NFE in settings.nfes else max(settings.nfes)
        image = centre_crop(whole[: settings.batch_size], settings.crop)
    forget_peak(device)
    with limited(device):
        _timed(run, whole, name, _SAMPLER, 1)  # the first call at each size is slow
        forward = _timed(run, whole, name, _SAMPLER, 1)
        if settings is None:
            seconds = _plain(run, image, name)
        else:
            _timed(run, image, name, _SAMPLER, 1)
            seconds = _timed(run, image, name, sampler, nfe)
    # A validation as if all its images were the largest: the loss, then every sampler and NFE.
    images = len(data.sets["val"])
    total = images * forward
    if settings is not None:
        calls = len(settings.samplers) * sum(settings.nfes)
        total += min(images, settings.max_images) * calls * seconds / nfe
    height, width = image.shape[-2:]
    return Restored(name, width, height, sampler, nfe, seconds, peak(device), total)


def _plain(run: BuiltRun, image: Tensor, name: str) -> float:
    """Seconds that ``sample.py`` would take, large images in tiles."""
    start = time.perf_counter()
    restored = Restorer(run.model.denoiser, sampler=_SAMPLER, nfe=_NFE).restore(image, [name])
    float(restored.sum())
    return time.perf_counter() - start
