"""The U-Net of IR-SDE (Luo et al. 2023) and of DA-CLIP, which is told what it restores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mrdiff.networks.blocks.parts import (
    LinearAttention,
    Prenorm,
    ResBlock,
    Sinusoids,
    Upsample,
    downsample,
    padding,
    plain_conv,
    raw_time,
)
from mrdiff.networks.inference.prepared import Prepared, prepare

Context = dict[str, Tensor]
Attention = Callable[[int, int], nn.Module]  # of (level, channels)


class ConditionalUNet(nn.Module):
    """What both U-Nets are made of; the attention of each level is theirs.

    It sees ``[x - mu, mu]``. Every block is modulated by the time through scale and shift.

    Args:
        channels: image channels C.
        widths: channels of the finest level and of those below, one more than there are levels.
        attention: ``(level, channels)`` makes that of a level, the finest being 0 and the middle
            of the network being the number of levels.
        steps: the official T: the network was trained on raw times t T.
        gradient_checkpointing: compute activations again in the backward pass of training, at a
            third more time, instead of keeping those of every block.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        attention: Attention,
        *,
        steps: int,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.channels, self.steps = channels, steps
        self.gradient_checkpointing = gradient_checkpointing
        first, last, levels = widths[0], widths[-1], len(widths) - 1
        time = 4 * first
        self.init_conv = plain_conv(2 * channels, first, 7)
        self.time_mlp = nn.Sequential(
            Sinusoids(first), nn.Linear(first, time), nn.GELU(), nn.Linear(time, time)
        )
        ups: list[nn.Module] = []
        self.downs = nn.ModuleList()
        for i, (a, b) in enumerate(itertools.pairwise(widths)):
            down = downsample(a, b) if i < levels - 1 else plain_conv(a, b)
            up = Upsample(b, a) if i > 0 else plain_conv(b, a)
            down_blocks = (ResBlock(a, a, time) for _ in range(2))
            up_blocks = (ResBlock(a + b, b, time) for _ in range(2))
            self.downs.append(nn.ModuleList([*down_blocks, Prenorm(a, attention(i, a)), down]))
            ups.insert(0, nn.ModuleList([*up_blocks, Prenorm(b, attention(i, b)), up]))
        self.mid_block1 = ResBlock(last, last, time)
        self.mid_attn = Prenorm(last, attention(levels, last))
        self.mid_block2 = ResBlock(last, last, time)
        self.ups = nn.ModuleList(ups)
        self.final_res_block = ResBlock(2 * first, first, time)
        self.final_conv = nn.Conv2d(first, channels, 3, padding=1)

    @property
    def size_multiple(self) -> int:
        """Height and width are padded to a multiple of this."""
        return int(2 ** len(self.downs))

    def embed(self, t: Tensor, context: Context | None) -> Tensor:
        """The embedding ``[B, 4 width]`` of the times ``[B]`` in [0, 1]."""
        time = raw_time(t.to(self.final_conv.weight.dtype), self.steps)
        embedding: Tensor = self.time_mlp(time)
        return embedding

    def films(self, t: Tensor, context: Context | None) -> list[Tensor]:
        """Scale and shift ``[B, 2 C]`` of every block, in the order of their use."""
        embedding = self.embed(t, context)
        # They are registered in the order of their use.
        return [block.mlp(embedding) for block in self.modules() if isinstance(block, ResBlock)]

    def padded(self, image: Tensor) -> Tensor:
        """The image with height and width of multiples; small ones are repeated at the edge."""
        pad = padding(image, self.size_multiple)
        # Reflection, as the official code has it, needs an image larger than its border.
        fits = pad[1] < image.shape[-1] and pad[3] < image.shape[-2]
        return F.pad(image, pad, mode="reflect" if fits else "replicate") if any(pad) else image

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: Context | None = None) -> Tensor:
        """The predicted noise.

        Args:
            x: state ``[B, C, H, W]``, any H and W.
            mu: degraded image ``[B, C, H, W]`` in [0, 1].
            t: ``[B]`` in [0, 1].
            context: what the network takes besides, if anything.

        Raises:
            ValueError: the context holds something that this network does not take.
        """
        first = self.init_conv(self.padded(torch.cat([x - mu, mu], dim=1)))
        out = self.body(first, self.films(t, context), self.token(context))
        return out[..., : x.shape[-2], : x.shape[-1]]

    def token(self, context: Context | None) -> Tensor | None:
        """What the attention is told, ``[B, 1, D]``; here nothing."""
        if context:
            raise ValueError(f"this network takes no context, got {', '.join(sorted(context))}")
        return None

    def prepare(self, mu: Tensor | None, times: Tensor, context: Context | None = None) -> Prepared:
        """The network for one sampling run: see :mod:`mrdiff.networks.inference.prepared`."""
        return prepare(self, self.init_conv, mu, times, context)

    def body(self, first: Tensor, films: Sequence[Tensor], token: Tensor | None) -> Tensor:
        """All but the first convolution, whose result ``[B, width, H, W]`` it is given."""
        film = iter(films)
        hidden, skips = first, list[Tensor]()
        for stage in self.downs:
            one, two, attention, resize = stage.children()
            hidden = self._run(one, hidden, next(film))
            skips.append(hidden)
            hidden = self._run(attention, self._run(two, hidden, next(film)), token)
            skips.append(hidden)
            hidden = resize(hidden)
        hidden = self._run(self.mid_block1, hidden, next(film))
        hidden = self._run(self.mid_attn, hidden, token)
        hidden = self._run(self.mid_block2, hidden, next(film))
        for stage in self.ups:
            one, two, attention, resize = stage.children()
            for block in (one, two):
                both = torch.cat([hidden, skips.pop()], dim=1)
                hidden = self._run(block, both, next(film))
            hidden = resize(self._run(attention, hidden, token))
        hidden = self._run(self.final_res_block, torch.cat([hidden, first], dim=1), next(film))
        out: Tensor = self.final_conv(hidden)
        return out

    def _run(self, block: nn.Module, x: Tensor, told: Tensor | None) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            out: Tensor = checkpoint(block, x, told, use_reentrant=False)
        else:
            out = block(x, told)
        return out


class IRSDEUNet(ConditionalUNet):
    """The network of IR-SDE's checkpoints (``ConditionalUNet`` there).

    Args:
        channels: image channels C.
        width: channels of the finest level; each of those below has twice as many.
        depth: number of levels.
        steps: the official T; raw times are t T.
        gradient_checkpointing: see :class:`ConditionalUNet`.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        width: int = 64,
        depth: int = 4,
        steps: int = 100,
        gradient_checkpointing: bool = False,
    ) -> None:
        widths = [width * 2**i for i in range(depth + 1)]
        super().__init__(
            channels,
            widths,
            lambda level, channels: LinearAttention(channels),
            steps=steps,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.width, self.depth = width, depth
