"""Noise that depends on (seed, image name, step) alone, whatever the batch or the device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NoiseSource = Callable[[int, Sequence[int]], Tensor]
Noise = torch.Generator | NoiseSource | None


def named_noise(seed: int, names: Sequence[str]) -> NoiseSource:
    """A noise source for samplers: each image has a stream of its own.

    Args:
        seed: any integer.
        names: one name per image of the batch.

    Returns:
        ``noise(step, shape)`` with shape ``[len(names), C, H, W]``: float32 on the CPU, where
        the generator is the same on every machine.
    """

    def source(step: int, shape: Sequence[int]) -> Tensor:
        if shape[0] != len(names):
            raise ValueError(f"noise for {len(names)} names was asked in shape {tuple(shape)}")
        return torch.stack([_one(seed, name, step, shape[1:]) for name in names])

    return source


def _one(seed: int, name: str, step: int, shape: Sequence[int]) -> Tensor:
    digest = hashlib.sha256(f"{seed}\0{name}\0{step}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(*shape, generator=generator)


def draw(noise: Noise, step: int, like: Tensor) -> Tensor:
    """N(0, 1) of the shape, dtype and device of ``like`` from whatever the caller gave.

    Args:
        noise: None (torch's global generator), a Generator, or a callable ``(step, shape)``.
        step: 0 is the prior; step i > 0 is added by the i-th solver step.
    """
    if noise is None:
        return torch.randn_like(like)
    if isinstance(noise, torch.Generator):
        shape, dtype = like.shape, like.dtype
        drawn = torch.randn(shape, generator=noise, dtype=dtype, device=noise.device)
    else:
        drawn = noise(step, tuple(like.shape))
        if drawn.shape != like.shape:
            raise ValueError(f"noise has shape {tuple(drawn.shape)}, not {tuple(like.shape)}")
    return drawn.to(device=like.device, dtype=like.dtype)


def keyed_generator(device: torch.device, *key: int) -> torch.Generator:
    """A generator that depends on the key alone, so that a resumed run repeats its noise."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)
