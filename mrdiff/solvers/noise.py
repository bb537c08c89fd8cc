"""Noise that depends on (seed, image name, step) alone, whatever the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

NoiseSource = Callable[[int, Sequence[int]], Tensor]
Noise = torch.Generator | NoiseSource | None

_CPU = torch.device("cpu")


class NamedNoise(Protocol):
    """The noise of named images."""

    def __call__(self, step: int, shape: Sequence[int], out: Tensor | None = None) -> Tensor:
        """Float32 N(0, 1) of the shape ``[B, C, H, W]``, into ``out`` of that shape if given."""


def named_noise(seed: int, names: Sequence[str], *, device: torch.device = _CPU) -> NamedNoise:
    """A noise source ``(step, shape) -> N(0, 1)`` in which each image has a stream of its own.

    It is drawn on ``device`` if that is CUDA, without waiting for it, else on the CPU, where the
    generator is the same on every machine.
    """
    generator = torch.Generator(device if device.type == "cuda" else _CPU)

    def source(step: int, shape: Sequence[int], out: Tensor | None = None) -> Tensor:
        if shape[0] != len(names):
            raise ValueError(f"noise for {len(names)} names was asked in shape {tuple(shape)}")
        drawn = torch.empty(tuple(shape), device=generator.device) if out is None else out
        for name, image in zip(names, drawn, strict=True):
            image.normal_(generator=generator.manual_seed(_number(f"{seed}\0{name}\0{step}")))
        return drawn

    return source


def _number(text: str) -> int:
    """63 bits of a hash."""
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()  # names may be no UTF-8
    return int.from_bytes(digest[:8], "little") >> 1


class RunNoise:
    """The noise of one sampling run, N(0, temperature²), of shape, dtype and device of ``like``.

    Step 0 is the prior; step i > 0 is added by the i-th solver step. At temperature 0 nothing is
    drawn.
    """

    def __init__(self, noise: Noise, like: Tensor, temperature: float = 1.0) -> None:
        self._noise, self._like, self._temperature = noise, like, temperature

    def add_to(self, state: Tensor, step: int, weight: float) -> None:
        """state += weight noise, in place."""
        if self._temperature and weight:
            state.add_(self.draw(step), alpha=weight * self._temperature)

    def draw(self, step: int) -> Tensor:
        """N(0, 1)."""
        return self._draw(step).to(self._like)

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
    return torch.Generator(device).manual_seed(_number(repr(key)))
