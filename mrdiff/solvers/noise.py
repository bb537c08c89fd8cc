"""Noise that depends on (seed, image name, step) alone, whatever the batch or the device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NoiseSource = Callable[[int, Sequence[int]], Tensor]
Noise = torch.Generator | NoiseSource | None


def named_noise(seed: int, names: Sequence[str]) -> NoiseSource:
    """A noise source ``(step, shape) -> N(0, 1)`` in which each image has a stream of its own.

    The shape is ``[len(names), C, H, W]``; float32 on the CPU, where the generator is the same on
    every machine.
    """

    def source(step: int, shape: Sequence[int]) -> Tensor:
        if shape[0] != len(names):
            raise ValueError(f"noise for {len(names)} names was asked in shape {tuple(shape)}")
        return torch.stack([_one(seed, name, step, shape[1:]) for name in names])

    return source


def _one(seed: int, name: str, step: int, shape: Sequence[int]) -> Tensor:
    named = f"{seed}\0{name}\0{step}".encode(errors="surrogatepass")  # file names may be no UTF-8
    digest = hashlib.sha256(named).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(*shape, generator=generator)


class RunNoise:
    """The noise of one sampling run: ``noise(step)`` is N(0, temperature²).

    It has the shape, dtype and device of ``like``; at temperature 0 nothing is drawn, and it is a
    0-dim zero. Step 0 is the prior; step i > 0 is added by the i-th solver step.
    """

    def __init__(self, noise: Noise, like: Tensor, temperature: float = 1.0) -> None:
        self._noise, self._like, self._temperature = noise, like, temperature

    def __call__(self, step: int) -> Tensor:
        if self._temperature == 0:
            return self._like.new_zeros(())
        drawn = self._draw(step).to(self._like)
        return drawn if self._temperature == 1 else self._temperature * drawn

    def _draw(self, step: int) -> Tensor:
        like, noise = self._like, self._noise
        if noise is None:
            return torch.randn_like(like)
        if isinstance(noise, torch.Generator):
            # On the generator's device, which need not be the images'.
            return torch.randn(like.shape, generator=noise, dtype=like.dtype, device=noise.device)
        drawn = noise(step, tuple(like.shape))
        if drawn.shape != like.shape:
            raise ValueError(f"noise has shape {tuple(drawn.shape)}, not {tuple(like.shape)}")
        return drawn


def keyed_generator(device: torch.device, *key: int | str) -> torch.Generator:
    """A generator that depends on the key alone, so that a resumed run repeats its noise."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)
