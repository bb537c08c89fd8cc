"""Restoring a batch for measurement: cropped, in the Trainer's precision, timed."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mrdiff.diffusion.denoiser import BoundDenoiser, ContextDenoiser
from mrdiff.networks.conditions import Context
from mrdiff.solvers.noise import named_noise


def restore_timed(
    sampler: Callable[..., Tensor],
    denoiser: ContextDenoiser,
    lq: Tensor,
    *,
    context: Context | None = None,
    names: Sequence[str],
    seed: int,
    batch_size: int,
) -> tuple[Tensor, float]:
    """Restore images in batches, each from the noise of its own name.

    Args:
        sampler: `(denoiser, mu, noise=...) -> x0`.
        denoiser: what is sampled.
        lq: degraded images in [0, 1], [N, 3, H, W].
        context: what the network is told of the N images.
        names: the N image names.
        seed: of the noise.
        batch_size: images at once.

    Returns:
        The restored images [N, 3, H, W], not clamped, and the seconds that all of them took.
    """
    _wait_for(lq.device)
    start = time.perf_counter()
    restored = []
    for i in range(0, len(lq), batch_size):
        part = slice(i, i + batch_size)
        told = None if context is None else {key: value[part] for key, value in context.items()}
        noise = named_noise(seed, names[part])
        restored.append(sampler(BoundDenoiser(denoiser, told), lq[part], noise=noise))
    _wait_for(lq.device)
    return torch.cat(restored), time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
