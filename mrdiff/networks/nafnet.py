"""The network of Refusion (Luo et al. 2023): NAFNet (Chen et al. 2022) told the time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mrdiff.networks.blocks.nafblock import NAFBlock, SimpleGate
from mrdiff.networks.blocks.parts import Sinusoids, padding, raw_time
from mrdiff.networks.inference.prepared import Prepared, prepare

Context = dict[str, Tensor]


class RefusionNAFNet(nn.Module):
    """The network of Refusion's checkpoints (``ConditionalNAFNet`` there).

    It sees ``[x - mu, mu]``.

    Args:
        channels: image channels C.
        width: channels of the finest level; each of those below has twice as many.
        encoder: blocks of each level going down.
        middle: blocks of the coarsest level.
        decoder: blocks of each level going up, the coarsest first.
        steps: the official T; raw times are t T.
        gradient_checkpointing: compute activations again in the backward pass of training, at a
            third more time, instead of keeping those of every block.

    Raises:
        ValueError: encoder and decoder have not the same number of levels.
    """

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
        super().__init__()
        if len(encoder) != len(decoder):
            raise ValueError(
                f"encoder and decoder need as many levels, got {len(encoder)} and {len(decoder)}"
            )
        self.channels, self.width, self.encoder = channels, width, tuple(encoder)
        self.middle, self.decoder, self.steps = middle, tuple(decoder), steps
        self.gradient_checkpointing = gradient_checkpointing
        time = 4 * width
        self.time_mlp = nn.Sequential(
            Sinusoids(width), nn.Linear(width, 2 * time), SimpleGate(), nn.Linear(time, time)
        )

        def stage(width: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(NAFBlock(width, time) for _ in range(count)))

        widths = [width * 2**i for i in range(len(encoder) + 1)]
        self.intro = nn.Conv2d(2 * channels, width, 3, padding=1)
        self.ending = nn.Conv2d(width, channels, 3, padding=1)
        self.encoders = nn.ModuleList(map(stage, widths, encoder))
        self.downs = nn.ModuleList(nn.Conv2d(w, 2 * w, 2, stride=2) for w in widths[:-1])
        self.middle_blks = stage(widths[-1], middle)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(w, 2 * w, 1, bias=False), nn.PixelShuffle(2))
            for w in widths[:0:-1]
        )
        self.decoders = nn.ModuleList(map(stage, widths[-2::-1], decoder))

    @property
    def size_multiple(self) -> int:
        """Height and width are padded to a multiple of this."""
        return int(2 ** len(self.encoders))

    def films(self, t: Tensor, context: Context | None) -> list[Tensor]:
        """Shifts and scales ``[B, 4 C]`` of every block, in the order of their use.

        Raises:
            ValueError: there is a context; this network takes none.
        """
        if context:
            raise ValueError(f"this network takes no context, got {', '.join(sorted(context))}")
        embedding = self.time_mlp(raw_time(t.to(self.ending.weight.dtype), self.steps))
        # They are registered in the order of their use.
        return [block.mlp(embedding) for block in self.modules() if isinstance(block, NAFBlock)]

    def padded(self, image: Tensor) -> Tensor:
        """The image with zeros up to a height and width of multiples."""
        pad = padding(image, self.size_multiple)
        return F.pad(image, pad) if any(pad) else image

    def token(self, context: Context | None) -> None:
        """Nothing: it has no attention to tell of a context."""

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: Context | None = None) -> Tensor:
        """The predicted noise.

        Args:
            x: state ``[B, C, H, W]``, any H and W.
            mu: degraded image ``[B, C, H, W]`` in [0, 1].
            t: ``[B]`` in [0, 1].
            context: none.

        Raises:
            ValueError: there is a context.
        """
        first = self.intro(self.padded(torch.cat([x - mu, mu], dim=1)))
        out = self.body(first, self.films(t, context))
        return out[..., : x.shape[-2], : x.shape[-1]]

    def prepare(self, mu: Tensor | None, times: Tensor, context: Context | None = None) -> Prepared:
        """The network for one sampling run: see :mod:`mrdiff.networks.inference.prepared`."""
        return prepare(self, self.intro, mu, times, context)

    def body(self, first: Tensor, films: Sequence[Tensor], token: None = None) -> Tensor:
        """All but the first convolution, whose result ``[B, width, H, W]`` it is given."""
        film = iter(films)

        def run(stage: nn.Module, x: Tensor) -> Tensor:
            for block in stage.children():
                told = next(film)
                if self.gradient_checkpointing and torch.is_grad_enabled():
                    x = checkpoint(block, x, told, use_reentrant=False)
                else:
                    x = block(x, told)
            return x

        hidden, skips = first, list[Tensor]()
        for stage, down in zip(self.encoders, self.downs, strict=True):
            hidden = run(stage, hidden)
            skips.append(hidden)
            hidden = down(hidden)
        hidden = run(self.middle_blks, hidden)
        for stage, up in zip(self.decoders, self.ups, strict=True):
            hidden = run(stage, up(hidden) + skips.pop())
        out: Tensor = self.ending(hidden)
        return out
