"""What the official networks share: ``[x - mu, mu]`` in, every block modulated by the time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mrdiff.networks.blocks.borders import cropped
from mrdiff.networks.blocks.parts import raw_time
from mrdiff.networks.inference.fast import inference_copy
from mrdiff.networks.protocol import Context, Prepared, check_sizes, time_type


class OfficialNetwork(nn.Module, ABC):
    """A network of the noise at the official raw times t T.

    Args:
        channels: image channels C.
        steps: the official T.
        gradient_checkpointing: compute activations again in the backward pass of training, at a
            third more time, instead of storing those of every block.
    """

    block: ClassVar[type[nn.Module]]  # what the time modulates, by its layer ``mlp``
    time_mlp: nn.Module
    downs: nn.ModuleList

    def __init__(self, channels: int, *, steps: int, gradient_checkpointing: bool) -> None:
        super().__init__()
        check_sizes(1, channels=channels)
        self.channels, self.steps = channels, steps
        self.gradient_checkpointing = gradient_checkpointing

    @property
    @abstractmethod
    def entry(self) -> nn.Conv2d:
        """The first convolution, of ``[x - mu, mu]``."""

    @abstractmethod
    def padded(self, image: Tensor) -> Tensor:
        """The image with height and width of multiples of ``size_multiple``."""

    @abstractmethod
    def body(self, first: Tensor, films: Sequence[Tensor], token: Tensor | None) -> Tensor:
        """All behind the first convolution, whose result ``[B, width, H, W]`` it is given."""

    @property
    def size_multiple(self) -> int:
        return int(2 ** len(self.downs))

    def embed(self, t: Tensor, context: Context | None) -> Tensor:
        """The embedding ``[B, D]`` of the times ``[B]`` in [0, 1]."""
        waves, *layers = self.time_mlp.children()
        dtype = self.entry.weight.dtype
        embedding: Tensor = waves(raw_time(t.to(time_type(dtype)), self.steps)).to(dtype)
        for layer in layers:
            embedding = layer(embedding)
        return embedding

    def films(self, t: Tensor, context: Context | None) -> list[Tensor]:
        """The modulation of every block, in the order of use, which is that of the names."""
        embedding = self.embed(t, context)
        blocks: list[Any] = [part for part in self.modules() if isinstance(part, self.block)]
        return [block.mlp(embedding) for block in blocks]

    def token(self, context: Context | None) -> Tensor | None:
        """What the attention sees of the context, ``[B, 1, D]``; here nothing.

        Raises:
            ValueError: the context has something that this network does not take.
        """
        if context:
            raise ValueError(f"this network takes no context, got {', '.join(sorted(context))}")
        return None

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: Context | None = None) -> Tensor:
        first = self.entry(self.padded(torch.cat([x - mu, mu], dim=1)))
        out = self.body(first, self.films(t, context), self.token(context))
        return cropped(out, x)

    def prepare(self, mu: Tensor | None, times: Tensor, context: Context | None = None) -> Prepared:
        fast: Any = inference_copy(self)
        films = [fast.films(t[None], context) for t in times]
        token = fast.token(context)
        if mu is not None:
            # W [x - mu, mu] = W_1 x + (W_2 - W_1) mu: the part in mu once.
            state, condition = self.entry.weight.chunk(2, dim=1)
            condition = (condition - state).contiguous(memory_format=torch.channels_last)
            state = state.contiguous(memory_format=torch.channels_last)
            padding = self.entry.padding
            start = F.conv2d(fast.padded(mu), condition, self.entry.bias, padding=padding)

        def run(x: Tensor, condition: Tensor, index: int) -> Tensor:
            if mu is None:
                first = self.entry(fast.padded(torch.cat([x - condition, condition], dim=1)))
            else:
                first = F.conv2d(fast.padded(x), state, padding=padding).add_(start)
            first = first.contiguous(memory_format=torch.channels_last)
            out: Tensor = fast.body(first, films[index], token)
            return cropped(out, x)

        return run

    def _run(self, block: nn.Module, x: Tensor, film: Tensor | None) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            out: Tensor = checkpoint(block, x, film, use_reentrant=False)
        else:
            out = block(x, film)
        return out
