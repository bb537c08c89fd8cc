"""What is believed of a state: x0 and eps, computed when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from mrdiff.diffusion.parameterization import Reading


class Prediction:
    """What is believed of a state: clean image x0 and noise eps, both ``[B, C, H, W]``.

    Each may be given as what computes it: most samplers ask for one of them, or for neither.
    """

    __slots__ = ("_eps", "_x0")

    def __init__(
        self, x0: Tensor | Callable[[], Tensor], eps: Tensor | Callable[[], Tensor]
    ) -> None:
        self._x0, self._eps = x0, eps

    @property
    def x0(self) -> Tensor:
        if not isinstance(self._x0, Tensor):
            self._x0 = self._x0()
        return self._x0

    @property
    def eps(self) -> Tensor:
        if not isinstance(self._eps, Tensor):
            self._eps = self._eps()
        return self._eps

    def y0(self, x: Tensor, mu: Tensor) -> Tensor:
        """The clean residual x0 - mu, for the state and the degraded image of the prediction."""
        del x
        return self.x0 - mu

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.x0, self.eps))


class Output(Prediction):
    """A network's output F for the state ``x``, and how it is read."""

    __slots__ = ("out", "reading")

    def __init__(self, out: Tensor, reading: Reading, x: Tensor, mu: Tensor) -> None:
        super().__init__(
            lambda: mu + self.y0(x, mu),
            lambda: _mixed(reading.e_skip, x, mu, reading.e_out, out),
        )
        self.out, self.reading = out, reading

    def y0(self, x: Tensor, mu: Tensor) -> Tensor:
        return _mixed(self.reading.c_skip, x, mu, self.reading.c_out, self.out)


def _mixed(skip: Any, x: Tensor, mu: Tensor, gain: Any, out: Tensor) -> Tensor:
    """skip (x - mu) + gain out"""
    if isinstance(skip, Tensor):
        return skip * (x - mu) + gain * out
    return torch.add(skip * (x - mu), out, alpha=gain) if skip else gain * out
