"""Which network a file's weights belong to, told by their names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mrdiff.checkpoints.description import CheckpointError
from mrdiff.networks import DACLIPUNet, IRSDEUNet, RefusionNAFNet
from mrdiff.official.weights import OfficialFile

NETWORKS: dict[str, type[nn.Module]] = {
    "irsde": IRSDEUNet,
    "refusion": RefusionNAFNet,
    "daclip": DACLIPUNet,
}
_LOOKS = {
    "irsde": "IR-SDE's U-Net",
    "refusion": "Refusion's NAFNet",
    "daclip": "DA-CLIP's U-Net",
}


@dataclass(frozen=True)
class Architecture:
    """A network that weights fit: its kind, of ``NETWORKS``, and arguments."""

    kind: str
    arguments: dict[str, Any]

    def build(self, *, steps: int) -> nn.Module:
        """The network without memory for its weights, told the official T.

        Raises:
            ValueError: there is no such network.
        """
        with torch.device("meta"):
            return NETWORKS[self.kind](**self.arguments, steps=steps)

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{NETWORKS[self.kind].__name__}({arguments})"


class _Shapes:
    """The shapes in a file, by name."""

    def __init__(self, file: OfficialFile) -> None:
        self.path = file.path
        self.shapes = {name: tuple(value.shape) for name, value in file.weights.items()}

    def size(self, name: str, axis: int) -> int:
        """The size of a weight along an axis."""
        shape = self.shapes.get(name, ())
        if axis >= len(shape):
            raise CheckpointError(f"{self.path}: the weight {name} is missing or of another kind")
        return shape[axis]

    def count(self, start: str) -> int:
        """How many different numbers follow after ``start`` in the names."""
        pattern = re.compile(re.escape(start) + r"(\d+)\.")
        return len({found[1] for name in self.shapes if (found := pattern.match(name))})

    def find(self, part: str) -> str | None:
        """The first name with a part in it."""
        return next((name for name in self.shapes if part in name), None)


def recognise(file: OfficialFile, kind: str) -> Architecture:
    """The architecture that a file's weights are of.

    Args:
        file: what was read.
        kind: what it is said to be, of ``NETWORKS``.

    Raises:
        CheckpointError: it looks like something else, or like a variant that is not known here.
    """
    shapes = _Shapes(file)
    looks = _kind(shapes)
    _refuse_variants(shapes, looks)
    if looks != kind:
        raise CheckpointError(
            f"{file.path} was given as {kind}, but looks like {_LOOKS[looks]}: give --as {looks}"
        )
    arguments = {"irsde": _irsde, "refusion": _refusion, "daclip": _daclip}[kind](shapes)
    return Architecture(kind, arguments)


def _kind(shapes: _Shapes) -> str:
    """What the file looks like."""
    if "intro.weight" in shapes.shapes:
        return "refusion"
    if "init_conv.weight" in shapes.shapes:
        told = "prompt" in shapes.shapes or shapes.find("transformer_blocks") is not None
        return "daclip" if told or not _doubles(shapes) else "irsde"
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
    if "downsample.weight" in shapes.shapes:
        raise CheckpointError(
            f"{shapes.path} is a U-Net that works at half the size (downsample.weight), as that "
            "of wild-ir; only those at full size are converted"
        )


def _unet(shapes: _Shapes) -> tuple[int, int, int]:
    """(channels, width, levels) of a U-Net."""
    channels, width = shapes.size("final_conv.weight", 0), shapes.size("init_conv.weight", 0)
    return channels, width, shapes.count("downs.")


def _doubles(shapes: _Shapes) -> bool:
    """Whether each level has twice the channels of the one above, as far as they are there."""
    _, width, levels = _unet(shapes)
    outlets = (shapes.shapes.get(f"downs.{i}.3.weight") for i in range(levels))
    return all(s is None or s[:1] == (width * 2 ** (i + 1),) for i, s in enumerate(outlets))


def _irsde(shapes: _Shapes) -> dict[str, Any]:
    channels, width, depth = _unet(shapes)
    return {"channels": channels, "width": width, "depth": depth}


def _daclip(shapes: _Shapes) -> dict[str, Any]:
    channels, width, levels = _unet(shapes)
    outlets = [shapes.size(f"downs.{i}.3.weight", 0) for i in range(levels)]
    arguments: dict[str, Any] = {
        "channels": channels,
        "width": width,
        "multipliers": [outlet // max(width, 1) for outlet in outlets],
    }
    text = "prompt" in shapes.shapes
    keys = shapes.find("transformer_blocks.0.attn2.to_k.weight")
    if text or keys:
        arguments["context_width"] = shapes.size(keys or "text_mlp.0.weight", 1)
    return arguments | {"text": text, "image": keys is not None}


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
    """Refuse weights that are not exactly the network's, or no numbers.

    Raises:
        CheckpointError: names or shapes differ, or a weight is not finite.
    """
    ours = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in file.weights.items()}
    wrong = [name for name in ours if name in theirs and ours[name] != theirs[name]]
    groups: Mapping[str, list[str]] = {
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
