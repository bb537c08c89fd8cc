"""Weights out of a DA-CLIP checkpoint, into modules of their sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from mrdiff.official.daclip.towers import TextTower, VisionTower
from mrdiff.system.saved import SavedFileError, load_saved

__all__ = ["DACLIPError", "Weights", "fill", "read_daclip", "text_tower", "vision_tower"]

Weights = dict[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)


class DACLIPError(ValueError):
    """A file that is no DA-CLIP checkpoint, or a package that is missing: one line."""


def read_daclip(path: Path | str) -> Weights:
    """The weights in a DA-CLIP checkpoint by their official names.

    They may lie under ``state_dict``, and below ``module.`` after training on several GPUs.

    Raises:
        DACLIPError: it is missing, unreadable, or holds no weights.
    """
    if not Path(path).is_file():
        raise DACLIPError(f"no DA-CLIP checkpoint at {path}")
    try:
        content = load_saved(Path(path))
    except SavedFileError as error:
        raise DACLIPError(f"{path} is not a readable checkpoint: {error}") from error
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    if not isinstance(content, Mapping) or not any(isinstance(v, Tensor) for v in content.values()):
        raise DACLIPError(f"{path} is no DA-CLIP checkpoint: it holds no weights")
    return {str(k).removeprefix("module."): v for k, v in content.items() if isinstance(v, Tensor)}


def _sized(weights: Weights, names: Mapping[str, int], where: str) -> list[tuple[int, ...]]:
    """The shapes of weights, each with a number of dimensions."""
    if missing := [name for name in names if name not in weights]:
        raise DACLIPError(f"{where} is no DA-CLIP checkpoint: it has no {', '.join(missing)}")
    for name, dimensions in names.items():
        if weights[name].ndim != dimensions:
            shape = list(weights[name].shape)
            raise DACLIPError(f"{where}: {name} is {shape}, expected {dimensions} dimensions")
    return [tuple(weights[name].shape) for name in names]


def _layers(weights: Weights, prefix: str) -> int:
    start = f"{prefix}transformer.resblocks."
    return len({key.removeprefix(start).split(".")[0] for key in weights if key.startswith(start)})


def vision_tower(weights: Weights, prefix: str, where: str) -> VisionTower:
    """A vision tower, on the meta device, of the sizes of the weights below ``prefix``.

    Raises:
        DACLIPError: those that show the sizes are missing; ``where`` names the file.
    """
    names = {"conv1.weight": 4, "positional_embedding": 2, "proj": 2}
    conv, positions, proj = _sized(weights, {prefix + k: n for k, n in names.items()}, where)
    sizes = {"patch": conv[-1], "grid": math.isqrt(positions[0] - 1), "outputs": proj[1]}
    with torch.device("meta"):
        return VisionTower(conv[0], _layers(weights, prefix), **sizes)


def text_tower(weights: Weights, prefix: str, where: str) -> TextTower:
    """The same for a text tower."""
    names = {"token_embedding.weight": 2, "positional_embedding": 2, "text_projection": 2}
    words, positions, proj = _sized(weights, {prefix + k: n for k, n in names.items()}, where)
    sizes = {"words": words[0], "length": positions[0], "outputs": proj[1]}
    with torch.device("meta"):
        return TextTower(words[1], _layers(weights, prefix), **sizes)


def fill(module: Module, weights: Weights, official: Callable[[str], str], where: str) -> Module:
    """The module with its weights, float32 on the CPU, frozen.

    Args:
        module: on any device.
        weights: by their official names.
        official: makes such a name of one of the module's.
        where: names the file in errors.

    Raises:
        DACLIPError: some are missing or have another shape.
    """
    wanted = {official(name): value.shape for name, value in module.state_dict().items()}
    if missing := [name for name in wanted if name not in weights]:
        what = f"{len(missing)} keys are missing, first {missing[0]}"
        raise DACLIPError(f"{where} is no DA-CLIP checkpoint: {what}")
    for name, shape in wanted.items():
        if weights[name].shape != shape:
            theirs = list(weights[name].shape)
            raise DACLIPError(f"{where}: {name} is {theirs}, expected {list(shape)}")
    taken = {name: weights[official(name)].float() for name in module.state_dict()}
    module.load_state_dict(taken, assign=True)
    return module.eval().requires_grad_(False)
