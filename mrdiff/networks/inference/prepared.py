"""A network made ready for one sampling run: what does not change from call to call is done once.

The modulations of all blocks depend on the time alone: they are computed for the whole grid. The
first convolution is linear in ``[x - mu, mu]``: its part in mu is computed once an image. On the
CPU the blocks are those of :mod:`mrdiff.networks.inference.fast`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrdiff.networks.inference.derived import derived
from mrdiff.networks.inference.fast import fast_copy

__all__ = ["Prepared", "inference_copy", "is_plain", "prepare"]

Context = dict[str, Tensor]
Prepared = Callable[[Tensor, Tensor, int], Tensor]  # (x, mu, index of the time) -> prediction


def is_plain(network: nn.Module) -> bool:
    """Whether its parts do what their classes do, so that their weights tell all of them.

    Adapters, parametrizations, hooks and compiled modules do more.
    """
    for module in network.modules():
        changed = module._forward_hooks or module._forward_pre_hooks
        own = type(module).__module__.startswith(("torch.nn.modules.", "mrdiff.networks."))
        if changed or not own or module._compiled_call_impl is not None:
            return False
    return True


def inference_copy(network: nn.Module) -> nn.Module:
    """The network with the fast blocks if it computes in float32 on the CPU, else itself."""
    weight = next(network.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return network
    return fast_copy(network)


def _of_the_state(weight: Tensor) -> Tensor:
    return weight.chunk(2, dim=1)[0].contiguous(memory_format=torch.channels_last)


def _of_the_condition(weight: Tensor) -> Tensor:
    """W [x - mu, mu] = W_1 x + (W_2 - W_1) mu."""
    state, condition = weight.chunk(2, dim=1)
    return (condition - state).contiguous(memory_format=torch.channels_last)


def prepare(
    network: nn.Module,
    entry: nn.Conv2d,
    mu: Tensor | None,
    times: Tensor,
    context: Context | None,
) -> Prepared:
    """The network for the images ``mu`` at the times of a grid, without gradients.

    Args:
        network: with the methods ``films(t, context)``, the modulations of all blocks;
            ``token(context)``, what the attention is told; ``padded(image)``; and
            ``body(first, films, token)``, all behind the first convolution.
        entry: its first convolution, of ``[x - mu, mu]``.
        mu: degraded images ``[B, C, H, W]``; None if they are cut in tiles, and differ.
        times: ``[N]`` in [0, 1].
        context: as its ``forward`` takes it.

    Returns:
        ``(x, mu, i) -> prediction`` at ``times[i]``.
    """
    fast: Any = inference_copy(network)
    films = [fast.films(t[None], context) for t in times]
    token = fast.token(context)
    weight, padding = entry.weight, entry.padding
    if mu is not None:
        condition = derived(weight, "condition", _of_the_condition)
        start = F.conv2d(fast.padded(mu), condition, entry.bias, padding=padding)

    def run(x: Tensor, condition: Tensor, index: int) -> Tensor:
        if mu is None:
            both = torch.cat([x - condition, condition], dim=1)
            first = F.conv2d(fast.padded(both), weight, entry.bias, padding=padding)
        else:
            state = derived(weight, "state", _of_the_state)
            first = F.conv2d(fast.padded(x), state, padding=padding).add_(start)
        first = first.contiguous(memory_format=torch.channels_last)
        out: Tensor = fast.body(first, films[index], token)
        return out[..., : x.shape[-2], : x.shape[-1]]

    return run
