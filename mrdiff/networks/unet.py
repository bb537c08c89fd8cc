"""A plain convolutional U-Net: small enough for two CPU cores, and wide enough for a GPU."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mrdiff.networks.blocks.borders import cropped, padded
from mrdiff.networks.blocks.classifier import DegradationClassifier
from mrdiff.networks.blocks.convolution import Conv
from mrdiff.networks.blocks.residual_block import ResidualBlock, zero_conv
from mrdiff.networks.conditions import with_task
from mrdiff.networks.inference.fast import inference_copy
from mrdiff.networks.protocol import Context, Prepared, check_sizes, time_type


class TimeEmbedding(nn.Module):
    """Sines and cosines of t at octaves, then two linear layers: ``[B]`` -> ``[B, width]``."""

    octaves: Tensor

    def __init__(self, width: int, octaves: int = 8) -> None:
        super().__init__()
        # Whole numbers, which no conversion of the network rounds.
        self.register_buffer("octaves", 2 ** torch.arange(octaves), persistent=False)
        self.layers = nn.Sequential(
            nn.Linear(2 * octaves, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * math.pi * self.octaves
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        return self.layers(waves.to(next(self.parameters()).dtype))


class Stage(nn.Module):
    """Residual blocks of one width; ``films`` gives the modulation of the block next."""

    def __init__(self, width: int, count: int, time_width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(width, time_width) for _ in range(count))

    def forward(self, x: Tensor, films: Iterator[Tensor]) -> Tensor:
        for block in self.blocks:
            x = block(x, next(films))
        return x


class UNet(nn.Module):
    """Time-conditioned residual U-Net for any image size.

    It sees ``[input_gain (x - mu), 2 mu - 1]`` behind a pixel-unshuffle and starts by returning
    zero. x - mu itself, which near t = 0 is nearly the target, goes past the layers with a gain
    that depends on the time. Every layer is local: a pixel sees about 125 pixels around it at the
    default depth.

    Args:
        channels: image channels C.
        widths: channels of each level, the finest first.
        encoder: residual blocks of each level but the coarsest, going down.
        middle: residual blocks of the coarsest level.
        decoder: residual blocks of each level but the coarsest, going up: the coarsest first.
        patch: pixel-unshuffle factor at the input.
        time_width: width of the time embedding.
        input_gain: factor that brings x - mu to unit size.
        tasks: names of the degradations that it distinguishes; empty for one alone. With tasks
            there is a classifier, which stands in where no task is given.
        mask: whether it also sees which pixels are known; without one in the context, all.

    Raises:
        ValueError: the numbers of levels disagree, a task is named twice, or a size is none.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        widths: Sequence[int] = (32, 64, 128),
        encoder: Sequence[int] = (1, 1),
        middle: int = 2,
        decoder: Sequence[int] = (1, 1),
        patch: int = 2,
        time_width: int = 64,
        input_gain: float = 4.0,
        tasks: Sequence[str] = (),
        mask: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(1, channels=channels, widths=widths, patch=patch, time_width=time_width)
        check_sizes(0, encoder=encoder, middle=middle, decoder=decoder)
        if len(set(tasks)) < len(tasks):
            raise ValueError(f"every task needs a name of its own, got {', '.join(tasks)}")
        if not len(encoder) == len(decoder) == len(widths) - 1:
            raise ValueError(
                f"encoder and decoder need one entry for each of the {len(widths) - 1} finer "
                f"levels, got {len(encoder)} and {len(decoder)}"
            )
        self.channels, self.widths, self.encoder = channels, tuple(widths), tuple(encoder)
        self.middle, self.decoder, self.patch = middle, tuple(decoder), patch
        self.time_width, self.input_gain = time_width, input_gain
        self.tasks, self.mask = tuple(tasks), mask
        steps = list(itertools.pairwise(widths))
        self.time = TimeEmbedding(time_width)
        self.head = Conv((2 * channels + mask) * patch**2, widths[0], 3, padding=1)
        self.down_stages = nn.ModuleList(
            Stage(w, n, time_width) for w, n in zip(widths[:-1], encoder, strict=True)
        )
        self.downs = nn.ModuleList(Conv(a, b, 2, stride=2) for a, b in steps)
        self.middle_stage = Stage(widths[-1], middle, time_width)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(b, 4 * a, 1), nn.PixelShuffle(2)) for a, b in reversed(steps)
        )
        self.merges = nn.ModuleList(nn.Conv2d(2 * a, a, 1) for a, _ in reversed(steps))
        self.up_stages = nn.ModuleList(
            Stage(a, n, time_width) for (a, _), n in zip(reversed(steps), decoder, strict=True)
        )
        self.tail = zero_conv(widths[0], channels * patch**2)
        self.gain = nn.Linear(time_width, 1)
        for parameter in self.gain.parameters():
            nn.init.zeros_(parameter)
        if tasks:
            self.task = nn.Linear(len(tasks), time_width, bias=False)
            self.classifier = DegradationClassifier(channels, len(tasks))

    @property
    def size_multiple(self) -> int:
        return self.patch * 2 ** (len(self.widths) - 1)

    def classify(self, mu: Tensor) -> Tensor:
        logits: Tensor = self.classifier(mu)
        return logits

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: Context | None = None) -> Tensor:
        given = with_task(self, mu, context)
        state = self.input_gain * (x - mu)
        time = self._embed(t, given)
        out = self.body(self._first(state, mu, given), self._films(time))
        return self._finished(out, state, time)

    def prepare(
        self, mu: Tensor | None, times: Tensor, context: Context | None = None
    ) -> Prepared | None:
        given = context or {}
        if mu is not None:
            given = with_task(self, mu, given)
        elif "mask" in given or (self.tasks and "task" not in given):
            return None  # each tile has its own
        fast: UNet = inference_copy(self)  # type: ignore[assignment]
        embedded = [self._embed(t[None], given) for t in times]
        films = [self._films(time) for time in embedded]
        if mu is not None:
            split = self.channels * self.patch**2
            state_weight, rest = (
                weight.contiguous() for weight in self.head.weight.tensor_split([split], dim=1)
            )
            start = F.conv2d(self._rest(mu, given), rest, self.head.bias, padding=1)

        def run(x: Tensor, condition: Tensor, index: int) -> Tensor:
            state = self.input_gain * (x - condition)
            if mu is None:
                first = self._first(state, condition, given)
            else:
                first = F.conv2d(self._folded(state), state_weight, padding=1).add_(start)
            first = first.contiguous(memory_format=torch.channels_last)  # as the blocks' weights
            return self._finished(fast.body(first, films[index]), state, embedded[index])

        return run

    def _first(self, state: Tensor, mu: Tensor, context: Context) -> Tensor:
        first: Tensor = self.head(torch.cat([self._folded(state), self._rest(mu, context)], dim=1))
        return first

    def _folded(self, image: Tensor) -> Tensor:
        """Padded to the network's size, behind the pixel-unshuffle."""
        # Replication works for any size; reflection needs an image larger than its border.
        return F.pixel_unshuffle(padded(image, self.size_multiple, "replicate"), self.patch)

    def _rest(self, mu: Tensor, context: Context) -> Tensor:
        """What the first convolution sees besides x - mu."""
        unknown = {*context} - {"task" for _ in self.tasks} - ({"mask"} if self.mask else set())
        if unknown:
            raise ValueError(f"this UNet takes no {' or '.join(sorted(unknown))} in its context")
        parts = [2 * mu - 1]
        if self.mask:
            all_known = torch.ones_like(mu[:, :1])
            parts.append(1 - context.get("mask", all_known).to(mu.dtype))
        return self._folded(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0])

    def _films(self, time: Tensor) -> list[Tensor]:
        """Scale and shift of every block, in the order of their use, which is that of the names."""
        blocks = [block for block in self.modules() if isinstance(block, ResidualBlock)]
        return [block.film(time) for block in blocks]

    def _finished(self, out: Tensor, state: Tensor, time: Tensor) -> Tensor:
        """The last convolution's result ``[B, C patch², h, w]`` as a prediction."""
        direct = self.gain(time)[:, :, None, None] * state
        return direct + cropped(F.pixel_shuffle(out, self.patch), state)

    def _embed(self, t: Tensor, context: Context) -> Tensor:
        """The embedding ``[B, time_width]`` of the time and, if there are any, the tasks."""
        time: Tensor = self.time(t.to(time_type(self.tail.weight.dtype)))
        return time + self.task(context["task"].to(time.dtype)) if self.tasks else time

    def body(self, first: Tensor, films: Sequence[Tensor]) -> Tensor:
        """All between the first convolution's result and the pixel-shuffle."""
        film, hidden = iter(films), first
        skips: list[Tensor] = []
        for stage, down in zip(self.down_stages, self.downs, strict=True):
            hidden = stage(hidden, film)
            skips.append(hidden)
            hidden = down(hidden)
        hidden = self.middle_stage(hidden, film)
        for up, merge, stage in zip(self.ups, self.merges, self.up_stages, strict=True):
            hidden = merge(torch.cat([up(hidden), skips.pop()], dim=1))
            hidden = stage(hidden, film)
        out: Tensor = self.tail(F.silu(hidden))
        return out
