"""A network whose convolutions are rounded to 8 bits, as integer programs compute them.

A convolution gets its input in 256 steps between two values seen before, and its weights in 255
steps an output channel, or in 127 where the CPU's sums of products would overflow. The first and
the last convolution, those of single pixels or channels, and all else stay in floating point: the
residual stream in 8 bits costs decibels and saves no time.
"""

from __future__ import annotations

import contextlib
import copy
import math
import platform
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["RangeError", "Ranges", "check_ranges", "input_ranges", "rounded", "weight_steps"]

_CLASSIFIER = "classifier."  # called before the network or within it

Ranges = dict[str, tuple[float, float]]  # least and largest input of a convolution, by its name


class RangeError(ValueError):
    """Ranges that are not of a network: one line."""


@contextlib.contextmanager
def input_ranges(network: nn.Module) -> Iterator[Ranges]:
    """Watch a network that is called as ``network(...)``, and leave it as it was.

    Yields:
        An empty dict, filled on leaving the context with the ranges of the convolutions that
        :func:`rounded` is to round.

    Raises:
        RangeError: from within the network, if it computes what is not finite.
    """
    ranges: Ranges = {}
    seen: Ranges = {}  # in the order of the calls
    small: set[str] = set()  # with little to compute
    inside = False  # the network's forward

    def enter(module: nn.Module, *_: object) -> None:
        nonlocal inside
        # A copy that is run to find out its memory has the same hooks, and sees no photo.
        inside = module is network

    def leave(*_: object) -> None:
        nonlocal inside
        inside = False

    def look(name: str, module: nn.Conv2d, given: tuple[Any, ...]) -> None:
        if not inside:
            return
        least, most = (float(value) for value in given[0].detach().aminmax())
        if not (math.isfinite(least) and math.isfinite(most)):
            raise RangeError(f"{name} is given values that are not finite: is the model any good?")
        before = seen.get(name, (math.inf, -math.inf))
        seen[name] = (min(before[0], least), max(before[1], most))
        if module.groups > 1 or given[0].shape[-2:].numel() == 1:
            small.add(name)

    hooks = [
        part.register_forward_pre_hook(partial(look, name))
        for name, part in network.named_modules()
        if isinstance(part, nn.Conv2d) and not name.startswith(_CLASSIFIER)
    ]
    hooks.append(network.register_forward_pre_hook(enter))
    hooks.append(network.register_forward_hook(leave, always_call=True))
    try:
        yield ranges
    finally:
        for hook in hooks:
            hook.remove()
    ranges |= {name: seen[name] for name in list(seen)[1:-1] if name not in small}


def weight_steps() -> int:
    """Steps of a weight to each side of zero: 127, or 63 on a CPU that adds products in 16 bits.

    Those of Intel and AMD without VNNI do so, and 2 * 255 * 127 is too much for them.
    """
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    wide = found.get("avx512_vnni") or found.get("avx_vnni") or found.get("amx_int8")
    return 127 if wide or platform.machine() not in ("x86_64", "AMD64") else 63


class _RoundedWeight(nn.Module):
    """Symmetric steps of each output channel."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.steps = weight_steps()
        largest = weight.detach().abs().flatten(1).amax(dim=1)
        largest = torch.where(largest > 0, largest, 1.0)  # a channel of zeros
        self.register_buffer("scale", largest / self.steps)
        self.register_buffer("zero", torch.zeros(len(weight), dtype=torch.int32))

    def forward(self, weight: Tensor) -> Tensor:
        return torch.fake_quantize_per_channel_affine(
            weight,
            self.scale,  # type: ignore[arg-type]
            self.zero,  # type: ignore[arg-type]
            0,
            -self.steps,
            self.steps,
        )


def _rounding(least: float, most: float) -> Any:
    """A hook that rounds the first input to 256 steps, of which 0 is one: borders are zeros."""
    least, most = min(least, 0.0), max(most, 0.0)
    scale = (most - least) / 255 or 1.0
    zero = round(-least / scale)

    def hook(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        first, *others = given
        return torch.fake_quantize_per_tensor_affine(first, scale, zero, 0, 255), *others

    return hook


def check_ranges(network: nn.Module, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise RangeError if a name is no convolution of the network, or a range is none."""
    parts = dict(network.named_modules())
    for name, (least, most) in ranges.items():
        if not isinstance(parts.get(name), nn.Conv2d):
            raise RangeError(f"8-bit ranges of another network: it has no convolution {name}")
        if not -math.inf < least <= most < math.inf:
            raise RangeError(f"8-bit range of {name}: from {least} to {most}")


def rounded(network: nn.Module, ranges: Mapping[str, tuple[float, float]]) -> nn.Module:
    """A copy whose convolutions are rounded, still in floating point; programs make them integer.

    Args:
        network: without gradients, in float32.
        ranges: of :func:`input_ranges`; RangeError if they are not of this network.
    """
    check_ranges(network, ranges)
    copied = copy.deepcopy(network)
    for name, (least, most) in ranges.items():
        part: Any = copied.get_submodule(name)
        parametrize.register_parametrization(part, "weight", _RoundedWeight(part.weight))
        part.register_forward_pre_hook(_rounding(least, most))
    return copied
