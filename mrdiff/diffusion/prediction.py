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

    def y0(self, mu: Tensor) -> Tensor:
        """The clean residual x0 - mu, for the degraded image of the prediction."""
        return self.x0 - mu

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.x0, self.eps))


class Output(Prediction):
    """A network's output F for the state y = x - centre, and how it is read."""

    __slots__ = ("_y0", "out", "reading")

    def __init__(
        self, out: Tensor, reading: Reading, x: Tensor, mu: Tensor, centre: Tensor
    ) -> None:
        def y0() -> Tensor:  # without self, of which nothing would be freed at once
            return _mixed(reading.c_skip, x, centre, reading.c_out, out)

        super().__init__(
            lambda: mu + y0(), lambda: _mixed(reading.e_skip, x, centre, reading.e_out, out)
        )
        self.out, self.reading, self._y0 = out, reading, y0

    def y0(self, mu: Tensor) -> Tensor:
        del mu
        return self._y0()


def _mixed(skip: Any, x: Tensor, centre: Tensor, gain: Any, out: Tensor) -> Tensor:
    """skip (x - centre) + gain out"""
    if isinstance(skip, Tensor):
        return skip * (x - centre) + gain * out
    return torch.add(skip * (x - centre), out, alpha=gain) if skip else gain * out
