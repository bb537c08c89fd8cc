"""The two towers of CLIP (Radford et al. 2021), with the names of open_clip's weights.

Both are transformers of pre-normalised blocks with heads of 64 channels and the plain GELU of the
models trained on LAION, from which DA-CLIP comes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

__all__ = ["TextTower", "VisionTower"]

_HEAD = 64  # channels of an attention head


class Block(nn.Module):
    """Attention, then two layers a token, ``[B, N, width]`` in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, max(1, width // _HEAD), batch_first=True)
        layers = {
            "c_fc": nn.Linear(width, 4 * width),
            "gelu": nn.GELU(),
            "c_proj": nn.Linear(4 * width, width),
        }
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class Transformer(nn.Module):
    """The blocks of a tower."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width) for _ in range(layers))


class VisionTower(nn.Module):
    """Pixels to D = ``outputs`` features, by grid x grid patches of ``patch`` pixels a side."""

    def __init__(self, width: int, layers: int, *, patch: int, grid: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + grid**2, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, layers)
        self.proj = nn.Parameter(torch.zeros(width, outputs))

    def forward(
        self, pixels: Tensor, control: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The features ``[B, D]``, not normalised, and what each block returned ``[B, N, width]``.

        Args:
            pixels: normalised, ``[B, 3, S, S]`` with S = grid patch.
            control: what is added behind each block, in their order.
        """
        patches = rearrange(self.conv1(pixels), "b c h w -> b (h w) c")
        first = self.class_embedding.expand(len(patches), 1, -1)
        x = self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)
        states: list[Tensor] = []
        for index, block in enumerate(self.transformer.resblocks):
            x = block(x)
            if control is not None:
                x = x + control[index]
            states.append(x)
        return self.ln_post(x[:, 0]) @ self.proj, states


class TextTower(nn.Module):
    """Up to ``length`` tokens of a vocabulary of ``words`` to D = ``outputs`` features."""

    def __init__(self, width: int, layers: int, *, words: int, length: int, outputs: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(words, width)
        self.positional_embedding = nn.Parameter(torch.zeros(length, width))
        self.transformer = Transformer(width, layers)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, outputs))

    def forward(self, tokens: Tensor) -> Tensor:
        """The features ``[B, D]``, not normalised, of int64 tokens ``[B, length]``.

        They are read where a text ends: that token has the highest number.
        """
        length = tokens.shape[1]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        for block in self.transformer.resblocks:
            x = block(x, later)
        ends = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=1)]
        out: Tensor = self.ln_final(ends) @ self.text_projection
        return out
