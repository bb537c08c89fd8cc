"""The U-Net of IR-SDE (Luo et al. 2023), and what DA-CLIP's has in common with it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mrdiff.networks.blocks.borders import padded
from mrdiff.networks.blocks.convolution import Conv
from mrdiff.networks.blocks.parts import (
    LinearAttention,
    Prenorm,
    ResBlock,
    Sinusoids,
    Upsample,
    downsample,
    plain_conv,
)
from mrdiff.networks.official import OfficialNetwork
from mrdiff.networks.protocol import check_sizes


class ConditionalUNet(OfficialNetwork):
    """What both U-Nets are made of; the attention of each level is theirs.

    Args:
        channels: image channels C.
        widths: channels of the finest level and of those below, one more than there are levels.
        attention: ``(level, channels)`` makes that of a level, the finest being 0 and the middle
            of the network being the number of levels.
        steps: see :class:`OfficialNetwork`.
        gradient_checkpointing: see :class:`OfficialNetwork`.
        half_size: whether all levels work at half the size of the image.
    """

    block = ResBlock

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        attention: Callable[[int, int], nn.Module],
        *,
        steps: int,
        gradient_checkpointing: bool,
        half_size: bool = False,
    ) -> None:
        super().__init__(channels, steps=steps, gradient_checkpointing=gradient_checkpointing)
        first, last, levels = widths[0], widths[-1], len(widths) - 1
        time = 4 * first
        self.init_conv = plain_conv(2 * channels, first, 7)
        self.downsample = downsample(first, first) if half_size else nn.Identity()
        self.upsample = Upsample(first, first) if half_size else nn.Identity()
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
        self.final_conv = Conv(first, channels, 3, padding=1)

    @property
    def entry(self) -> nn.Conv2d:
        return self.init_conv

    def padded(self, image: Tensor) -> Tensor:
        return padded(image, self.size_multiple, "reflect")  # as the official code

    def body(self, first: Tensor, films: Sequence[Tensor], token: Tensor | None) -> Tensor:
        film = iter(films)
        hidden = self.downsample(first)
        skips: list[Tensor] = []
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
        hidden = torch.cat([self.upsample(hidden), first], dim=1)
        hidden = self._run(self.final_res_block, hidden, next(film))
        out: Tensor = self.final_conv(hidden)
        return out


class IRSDEUNet(ConditionalUNet):
    """The network of IR-SDE's checkpoints (``ConditionalUNet`` there).

    Args:
        channels: image channels C.
        width: channels of the finest level; each of those below has twice as many.
        depth: number of levels.
        steps: see :class:`OfficialNetwork`.
        gradient_checkpointing: see :class:`OfficialNetwork`.
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
        check_sizes(1, width=width)
        if not 1 <= depth <= 16:
            raise ValueError(f"depth must be 1 to 16 levels, got {depth!s:.80}")
        super().__init__(
            channels,
            [width * 2**i for i in range(depth + 1)],
            lambda level, channels: LinearAttention(channels),
            steps=steps,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.width, self.depth = width, depth
