"""The network of Refusion (Luo et al. 2023): NAFNet (Chen et al. 2022) with a time."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mrdiff.networks.blocks.borders import padded
from mrdiff.networks.blocks.convolution import Conv
from mrdiff.networks.blocks.parts import NAFBlock, SimpleGate, Sinusoids
from mrdiff.networks.official import OfficialNetwork
from mrdiff.networks.protocol import check_sizes


class RefusionNAFNet(OfficialNetwork):
    """The network of Refusion's checkpoints (``ConditionalNAFNet`` there).

    Args:
        channels: image channels C.
        width: channels of the finest level; each of those below has twice as many.
        encoder: blocks of each level going down.
        middle: blocks of the coarsest level.
        decoder: blocks of each level going up, the coarsest first.
        steps: see :class:`OfficialNetwork`.
        gradient_checkpointing: see :class:`OfficialNetwork`.

    Raises:
        ValueError: encoder and decoder have not the same number of levels.
    """

    block = NAFBlock

    def __init__(
        self,
        *,
        channels: int = 3,
        width: int = 64,
        encoder: Sequence[int] = (1, 1, 1, 28),
        middle: int = 1,
        decoder: Sequence[int] = (1, 1, 1, 1),
        steps: int = 100,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(channels, steps=steps, gradient_checkpointing=gradient_checkpointing)
        check_sizes(1, width=width)
        check_sizes(0, encoder=encoder, middle=middle, decoder=decoder)
        if len(encoder) != len(decoder):
            raise ValueError(
                f"encoder and decoder need as many levels, got {len(encoder)} and {len(decoder)}"
            )
        self.width, self.middle = width, middle
        self.encoder, self.decoder = tuple(encoder), tuple(decoder)
        time = 4 * width
        self.time_mlp = nn.Sequential(
            Sinusoids(width), nn.Linear(width, 2 * time), SimpleGate(), nn.Linear(time, time)
        )

        def stage(width: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(NAFBlock(width, time) for _ in range(count)))

        widths = [width * 2**i for i in range(len(encoder) + 1)]
        self.intro = Conv(2 * channels, width, 3, padding=1)
        self.ending = Conv(width, channels, 3, padding=1)
        self.encoders = nn.ModuleList(map(stage, widths, encoder))
        self.downs = nn.ModuleList(Conv(w, 2 * w, 2, stride=2) for w in widths[:-1])
        self.middle_blks = stage(widths[-1], middle)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(w, 2 * w, 1, bias=False), nn.PixelShuffle(2))
            for w in widths[:0:-1]
        )
        self.decoders = nn.ModuleList(map(stage, widths[-2::-1], decoder))

    @property
    def entry(self) -> nn.Conv2d:
        return self.intro

    def padded(self, image: Tensor) -> Tensor:
        return padded(image, self.size_multiple, "constant")

    def body(self, first: Tensor, films: Sequence[Tensor], token: Tensor | None) -> Tensor:
        film = iter(films)

        def run(stage: nn.Module, x: Tensor) -> Tensor:
            for block in stage.children():
                x = self._run(block, x, next(film))
            return x

        hidden = first
        skips: list[Tensor] = []
        for stage, down in zip(self.encoders, self.downs, strict=True):
            hidden = run(stage, hidden)
            skips.append(hidden)
            hidden = down(hidden)
        hidden = run(self.middle_blks, hidden)
        for stage, up in zip(self.decoders, self.ups, strict=True):
            hidden = run(stage, up(hidden) + skips.pop())
        out: Tensor = self.ending(hidden)
        return out
