"""A tiny DA-CLIP checkpoint with random weights, by the official names."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

WIDTH, LAYERS, PATCH, GRID = 128, 3, 8, 4
SIDE = PATCH * GRID


def _blocks(prefix: str, width: int, layers: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for index in range(layers):
        for name, shape in {
            "ln_1.weight": (width,),
            "ln_1.bias": (width,),
            "attn.in_proj_weight": (3 * width, width),
            "attn.in_proj_bias": (3 * width,),
            "attn.out_proj.weight": (width, width),
            "attn.out_proj.bias": (width,),
            "ln_2.weight": (width,),
            "ln_2.bias": (width,),
            "mlp.c_fc.weight": (4 * width, width),
            "mlp.c_fc.bias": (4 * width,),
            "mlp.c_proj.weight": (width, 4 * width),
            "mlp.c_proj.bias": (width,),
        }.items():
            shapes[f"{prefix}resblocks.{index}.{name}"] = shape
    return shapes


def _vision(prefix: str, transformer: str, width: int, layers: int, outputs: int) -> dict:
    return {
        f"{prefix}class_embedding": (width,),
        f"{prefix}positional_embedding": (1 + GRID**2, width),
        f"{prefix}proj": (width, outputs),
        f"{prefix}conv1.weight": (width, 3, PATCH, PATCH),
        **{f"{prefix}{ln}.{p}": (width,) for ln in ("ln_pre", "ln_post") for p in _AFFINE},
        **_blocks(f"{prefix}{transformer}", width, layers),
    }


_AFFINE = ("weight", "bias")


def tiny_daclip(
    *, width: int = WIDTH, layers: int = LAYERS, outputs: int = 512, words: int = 50
) -> dict[str, Tensor]:
    """Random weights of a DA-CLIP, the towers as wide as each other."""
    official = "transformer."
    shapes = {
        "logit_scale": (),
        "clip.logit_scale": (),
        "clip.positional_embedding": (77, width),
        "clip.text_projection": (width, outputs),
        "clip.token_embedding.weight": (words, width),
        **{f"clip.ln_final.{part}": (width,) for part in _AFFINE},
        **_blocks("clip.transformer.", width, layers),
        **_vision("clip.visual.", official, width, layers, outputs),
        **_vision("visual_control.", official * 2, width, layers, outputs),
    }
    for index in range(layers):
        zero = f"visual_control.transformer.zero_modules.{index}"
        shapes |= {f"{zero}.weight": (width, width), f"{zero}.bias": (width,)}
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        gain = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
        inputs = shape[-1] if len(shape) > 1 else 10
        weights[name] = gain + torch.randn(shape, generator=generator) * inputs**-0.5
    copies = {k.removeprefix("clip."): v for k, v in weights.items() if k.startswith("clip.visual")}
    return weights | copies


def write_daclip(path: Path, **sizes: int) -> Path:
    """The same as a file, as training on several GPUs writes it."""
    weights = {f"module.{key}": value for key, value in tiny_daclip(**sizes).items()}
    torch.save({"epoch": 3, "state_dict": weights}, path)
    return path
