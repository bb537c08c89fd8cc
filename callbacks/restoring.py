"""Restoring a batch for measurement: in tiles if it is large, in a Trainer's precision, timed."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from mrdiff.diffusion.wrappers import AutocastDenoiser, DenoiserLike
from mrdiff.networks.protocol import Context
from mrdiff.restoration.tiles import Tiler
from mrdiff.solvers.noise import named_noise


def restore_timed(
    sampler: Callable[..., Tensor],
    tiler: Tiler,
    lq: Tensor,
    *,
    names: Sequence[str],
    seed: int,
    batch_size: int,
    context: Context | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> tuple[Tensor, float]:
    """Restore images in batches, each from the noise of its own name.

    Args:
        sampler: ``(denoiser, mu, noise=...) -> x0``.
        tiler: of the denoiser; where it chooses tiles by the memory, images go one by one.
        lq: degraded images in [0, 1], ``[N, 3, H, W]``.
        names: of the N images.
        seed: of the noise.
        batch_size: images at once.
        context: conditions of the N images for the network.
        autocast: makes the context in which the network runs.

    Returns:
        The restored images ``[N, 3, H, W]``, not clamped, and the seconds that all of them took.
    """
    at_once = 1 if tiler.automatic else batch_size
    _wait_for(lq.device)
    start = time.perf_counter()
    restored = []
    for i in range(0, len(lq), at_once):
        part = slice(i, i + at_once)
        given = None if context is None else {key: value[part] for key, value in context.items()}
        mu, noise = lq[part], named_noise(seed, names[part])

        def work(model: DenoiserLike, mu: Tensor = mu, noise: Any = noise) -> Tensor:
            return sampler(AutocastDenoiser(model, autocast), mu, noise=noise)

        restored.append(tiler.run(work, *mu.shape[-2:], context=given))
    _wait_for(lq.device)
    return torch.cat(restored), time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
