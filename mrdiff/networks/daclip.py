"""The network of DA-CLIP's universal restoration (Luo et al. 2024), which takes CLIP's features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from mrdiff.networks.blocks.parts import LinearAttention
from mrdiff.networks.conditional_unet import ConditionalUNet
from mrdiff.networks.protocol import Context, check_sizes

_HEAD = 32  # channels of an attention head
_LOCAL = 3  # levels with linear attention at full size; those below have the transformer


class Attention(nn.Module):
    """Multi-head attention of ``[B, N, width]`` to itself or to a context ``[B, M, D]``."""

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        if context.shape[1] == 1:
            # The weights of one value sum to 1: queries and keys have no say.
            return self.to_out(self.to_v(context)).expand_as(x)
        q, k, v = (
            rearrange(projected, "b n (head c) -> b head n c", c=_HEAD)
            for projected in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        out = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(rearrange(out, "b head n c -> b n (head c)"))


class GEGLU(nn.Module):
    """a gelu(b) of a linear layer's halves (Shazeer 2020)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, 2 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class TransformerBlock(nn.Module):
    """Attention to all pixels, then to the context, then two layers a pixel."""

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.attn1 = Attention(width, width)
        # The identity has the place of the official dropout of 0.
        layers = GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)
        self.ff = nn.ModuleDict({"net": nn.Sequential(*layers)})
        self.attn2 = Attention(width, context)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attn1(normed, normed)
        x = x + self.attn2(self.norm2(x), token)
        out: Tensor = x + self.ff["net"](self.norm3(x))
        return out


class SpatialTransformer(nn.Module):
    """A transformer block over the pixels of an image, conditioned on a token ``[B, 1, D]``."""

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, context)])
        self.proj_out = nn.Conv2d(width, width, 1)
        for parameter in self.proj_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, token: Tensor) -> Tensor:
        hidden = rearrange(self.proj_in(self.norm(x)), "b c h w -> b (h w) c")
        for block in self.transformer_blocks:
            hidden = block(hidden, token)
        image = rearrange(hidden, "b (h w) c -> b c h w", h=x.shape[-2])
        out: Tensor = self.proj_out(image)
        return out + x


class DACLIPUNet(ConditionalUNet):
    """The network of DA-CLIP's universal checkpoints (``ConditionalUNet`` there).

    The context has two features ``[B, D]`` of DA-CLIP's image controller: ``text``, the
    degradation, acts with the time, which without it acts alone as in the official code; ``image``,
    the content, is needed and acts through the attention of the coarser levels.

    Args:
        channels: image channels C.
        width: channels of the first convolution.
        multipliers: channels of each level's outlet over ``width``; where there is a transformer
            they are multiples of 32.
        context_width: D.
        text: whether it takes the degradation.
        image: whether it takes the content.
        half_size: the network for photos in the wild (Luo et al. 2024, CVPRW): all levels work at
            half the size, and the last of them alone has a transformer.
        steps: see :class:`mrdiff.networks.official.OfficialNetwork`.
        gradient_checkpointing: the same.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 4, 8),
        context_width: int = 512,
        text: bool = True,
        image: bool = True,
        half_size: bool = False,
        steps: int = 100,
        gradient_checkpointing: bool = False,
    ) -> None:
        check_sizes(1, width=width, multipliers=multipliers, context_width=context_width)
        widths = [width, *(width * m for m in multipliers)]
        levels = len(multipliers)
        local = levels - 1 if half_size else _LOCAL

        def attention(level: int, channels: int) -> nn.Module:
            if image and (level >= local or level == levels):
                if channels % _HEAD:
                    raise ValueError(f"{channels} channels are not heads of {_HEAD}")
                return SpatialTransformer(channels, context_width)
            return LinearAttention(channels)

        super().__init__(
            channels,
            widths,
            attention,
            steps=steps,
            gradient_checkpointing=gradient_checkpointing,
            half_size=half_size,
        )
        self.half_size = half_size
        self.width, self.multipliers = width, tuple(multipliers)
        self.context_width, self.text, self.image = context_width, text, image
        time = 4 * width
        if text:
            self.prompt = nn.Parameter(torch.rand(1, time))
            self.text_mlp = nn.Sequential(
                nn.Linear(context_width, time), nn.SiLU(), nn.Linear(time, time)
            )
            self.prompt_mlp = nn.Linear(time, time)

    @property
    def features(self) -> dict[str, int]:
        taken = {"text": self.text, "image": self.image}
        return {name: self.context_width for name, yes in taken.items() if yes}

    def embed(self, t: Tensor, context: Context | None) -> Tensor:
        embedding = super().embed(t, None)
        if context is None or "text" not in context:
            return embedding
        shares = self.text_mlp(context["text"].to(embedding.dtype)).softmax(dim=1)
        prompt: Tensor = self.prompt_mlp(shares * self.prompt)
        return embedding + prompt

    def token(self, context: Context | None) -> Tensor | None:
        context = context or {}
        if unknown := sorted({*context} - {*self.features}):
            raise ValueError(f"this network takes no {' or '.join(unknown)} in its context")
        if not self.image:
            return None
        if "image" not in context:
            raise ValueError("this network needs the feature 'image' in its context")
        return context["image"][:, None].to(self.final_conv.weight.dtype)
