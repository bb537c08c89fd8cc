"""Which network a file's weights belong to, by their names and shapes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mrdiff.checkpoints.description import CheckpointError
from mrdiff.networks import DACLIPUNet, IRSDEUNet, RefusionNAFNet
from mrdiff.official.weights import OfficialFile

NETWORKS: dict[str, type[nn.Module]]
NETWORKS = {"irsde": IRSDEUNet, "refusion": RefusionNAFNet, "daclip": DACLIPUNet}
_LOOKS = {"irsde": "IR-SDE's U-Net", "refusion": "Refusion's NAFNet", "daclip": "DA-CLIP's U-Net"}


@dataclass(frozen=True)
class Architecture:
    """A network that weights fit: its kind, of ``NETWORKS``, and its arguments."""

    kind: str
    arguments: dict[str, Any]

    def build(self, *, steps: int) -> nn.Module:
        """The network on the meta device, with the official T; ValueError if it cannot be."""
        with torch.device("meta"):
            return NETWORKS[self.kind](**self.arguments, steps=steps)

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{NETWORKS[self.kind].__name__}({arguments})"


class _Shapes:
    """The shapes of a file's weights, by name."""

    def __init__(self, file: OfficialFile) -> None:
        self.path = file.path
        self.shapes = {name: tuple(value.shape) for name, value in file.weights.items()}

    def size(self, name: str, axis: int) -> int:
        shape = self.shapes.get(name, ())
        if axis >= len(shape):
            raise CheckpointError(f"{self.path}: the weight {name} is missing or of another kind")
        return shape[axis]

    def count(self, start: str) -> int:
        """How many different numbers follow ``start`` in the names."""
        pattern = re.compile(re.escape(start) + r"(\d+)\.")
        return len({found[1] for name in self.shapes if (found := pattern.match(name))})

    def find(self, part: str) -> str | None:
        return next((name for name in self.shapes if part in name), None)


def recognise(file: OfficialFile, expected: str | None = None) -> Architecture:
    """The architecture that a file's weights are of.

    Raises:
        CheckpointError: it is none of ``NETWORKS``, another one than ``expected``, or a variant
            that is not known here.
    """
    shapes = _Shapes(file)
    kind = _kind(shapes)
    _refuse_variants(shapes, kind)
    if expected not in (None, kind):
        raise CheckpointError(
            f"{file.path} was given as {expected}, but looks like {_LOOKS[kind]}: leave out --as, "
            f"or give --as {kind}"
        )
    arguments = {"irsde": _irsde, "refusion": _refusion, "daclip": _daclip}[kind](shapes)
    return Architecture(kind, arguments)


def _kind(shapes: _Shapes) -> str:
    if "intro.weight" in shapes.shapes:
        return "refusion"
    if "init_conv.weight" in shapes.shapes:
        context = "prompt" in shapes.shapes or shapes.find("transformer_blocks") is not None
        other = context or "downsample.weight" in shapes.shapes or not _doubles(shapes)
        return "daclip" if other else "irsde"
    if shapes.find("visual.transformer.resblocks"):
        raise CheckpointError(
            f"{shapes.path} looks like a CLIP, which does not restore by itself: give the weights "
            "of DA-CLIP's U-Net, e.g. universal-ir.pth"
        )
    raise CheckpointError(
        f"{shapes.path} looks like none of {', '.join(_LOOKS.values())}: it has neither "
        f"init_conv.weight nor intro.weight, its first key is {next(iter(shapes.shapes))}"
    )


def _refuse_variants(shapes: _Shapes, kind: str) -> None:
    """Refuse relatives whose weights mean something else."""
    nafnet = kind == "refusion"
    first = "intro.weight" if nafnet else "init_conv.weight"
    last = "ending.weight" if nafnet else "final_conv.weight"
    seen, channels = shapes.size(first, 1), shapes.size(last, 0)
    if seen == channels:
        raise CheckpointError(
            f"{shapes.path} is a network that sees the state x alone ({first} has {seen} input "
            "channels), as those of denoising-sde; only those that also see the degraded image "
            "are converted"
        )
    if "mid_attn.fn.fn.to_out.weight" in shapes.shapes:
        raise CheckpointError(
            f"{shapes.path} has full softmax attention in the middle "
            "(mid_attn.fn.fn.to_out.weight); only the variant with linear attention is converted"
        )


def _doubles(shapes: _Shapes) -> bool:
    """Whether each level that is there has twice the channels of the one above."""
    width = shapes.size("init_conv.weight", 0)
    outlets = (shapes.shapes.get(f"downs.{i}.3.weight") for i in range(shapes.count("downs.")))
    return all(s is None or s[:1] == (width * 2 ** (i + 1),) for i, s in enumerate(outlets))


def _irsde(shapes: _Shapes) -> dict[str, Any]:
    channels, width = shapes.size("final_conv.weight", 0), shapes.size("init_conv.weight", 0)
    return {"channels": channels, "width": width, "depth": shapes.count("downs.")}


def _daclip(shapes: _Shapes) -> dict[str, Any]:
    arguments = _irsde(shapes)
    width, levels = arguments["width"], range(arguments.pop("depth"))
    outlets = [shapes.size(f"downs.{i}.3.weight", 0) for i in levels]
    arguments["multipliers"] = [outlet // max(width, 1) for outlet in outlets]
    text = "prompt" in shapes.shapes
    keys = shapes.find("transformer_blocks.0.attn2.to_k.weight")
    if text or keys:
        arguments["context_width"] = shapes.size(keys or "text_mlp.0.weight", 1)
    half_size = "downsample.weight" in shapes.shapes
    return arguments | {"text": text, "image": keys is not None, "half_size": half_size}


def _refusion(shapes: _Shapes) -> dict[str, Any]:
    def blocks(side: str) -> list[int]:
        return [shapes.count(f"{side}.{i}.") for i in range(shapes.count(f"{side}."))]

    return {
        "channels": shapes.size("ending.weight", 0),
        "width": shapes.size("intro.weight", 0),
        "encoder": blocks("encoders"),
        "middle": shapes.count("middle_blks."),
        "decoder": blocks("decoders"),
    }


def check_weights(file: OfficialFile, network: nn.Module) -> None:
    """Raise CheckpointError unless names and shapes are the network's and all weights finite."""
    ours = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in file.weights.items()}
    wrong = [name for name in ours if name in theirs and ours[name] != theirs[name]]
    groups = {
        "missing": [name for name in ours if name not in theirs],
        "not known": [name for name in theirs if name not in ours],
        "of another shape": wrong,
    }
    found = [f"{len(names)} {what} (first {names[0]})" for what, names in groups.items() if names]
    if found:
        shapes = f": {theirs[wrong[0]]}, not {ours[wrong[0]]}" if wrong else ""
        raise CheckpointError(
            f"the weights in {file.path} are not those of a {type(network).__name__}: of its "
            f"{len(ours)} keys {', '.join(found)}{shapes}"
        )
    for name, value in file.weights.items():
        if not (value.is_floating_point() and value.isfinite().all()):
            raise CheckpointError(f"{file.path}: the weight {name} is not of finite numbers")
