"""Start a new run from old weights: take over what fits, by name and shape, and say what did not.

A convolution that got further input channels, which are the last ones, takes the old weights and
zeros for the new: the network computes what it did.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mrdiff.checkpoints.adapters import plain_state
from mrdiff.checkpoints.checks import check_meaning
from mrdiff.checkpoints.description import CheckpointError
from mrdiff.checkpoints.reading import read_checkpoint
from mrdiff.diffusion.denoiser import Denoiser

_LISTED = 6  # names or branches a line of the report


@dataclass(frozen=True)
class Transfer:
    """What became of the weights: names of the network, and of the checkpoint for ``unused``."""

    loaded: tuple[str, ...]  # taken as they are
    widened: tuple[str, ...]  # taken, with zeros for further input channels
    reshaped: tuple[str, ...]  # of another shape, hence not taken
    new: tuple[str, ...]  # not in the checkpoint
    unused: tuple[str, ...]  # in the checkpoint alone
    share: float  # of the network's numbers that come from the checkpoint, in [0, 1]

    def report(self) -> list[str]:
        ours = len(self.loaded) + len(self.widened) + len(self.reshaped) + len(self.new)
        taken = len(self.loaded) + len(self.widened)
        if not (self.widened or self.reshaped or self.new or self.unused):
            return [f"loaded all {ours} tensors"]
        lines = [f"loaded {taken} of {ours} tensors, {self.share:.1%} of the parameters"]
        said = {
            "widened, with zeros for the new inputs": self.widened,
            "another shape, as initialised": self.reshaped,
            "not in the checkpoint, as initialised": self.new,
            "in the checkpoint alone, not used": self.unused,
        }
        return lines + [
            f"  {what}: {len(names)} ({_shortened(names)})" for what, names in said.items() if names
        ]


def _branch(entry: str, depth: int) -> str:
    """The name of a tensor, or of what contains it ``depth`` levels down."""
    parts = entry.split(" ")[0].split(".")
    return entry if len(parts) <= depth else ".".join(parts[:depth]) + ".*"


def _shortened(entries: Sequence[str]) -> str:
    """All entries if they are few, else their branches with counts, as deep as there is room."""
    if len(entries) <= _LISTED:
        return ", ".join(entries)
    groups: dict[int, Counter[str]] = {
        depth: Counter(_branch(entry, depth) for entry in entries) for depth in (3, 2, 1)
    }
    found = next((g for g in groups.values() if len(g) <= _LISTED), groups[1])
    shown = [name if n == 1 else f"{name} {n}" for name, n in found.most_common(_LISTED)]
    more = len(found) - len(shown)
    return ", ".join(shown) + (f", and {more} more" if more > 0 else "")


def _plain_convolutions(network: nn.Module) -> set[str]:
    """Names of the weights whose second dimension is the layer's input channels."""
    return {
        f"{name.removesuffix('.base_layer')}.weight"
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.groups == 1
    }


def _widens(old: Tensor, new: Tensor) -> bool:
    """Whether the shapes differ in the input channels alone, of which the new one has more."""
    same = old.shape[:1] + old.shape[2:] == new.shape[:1] + new.shape[2:]
    return old.ndim == new.ndim and same and old.shape[1] < new.shape[1]


@torch.no_grad()
def load_fitting(network: nn.Module, weights: Mapping[str, Tensor]) -> Transfer:
    """Copy into the network, or beneath its adapters, what fits by name and shape."""
    convolutions = _plain_convolutions(network)
    loaded, widened, reshaped, new = [], [], [], []
    ours, taken = plain_state(network), 0
    for name, target in ours.items():
        source = weights.get(name)
        if source is None:
            new.append(name)
            continue
        shapes = f"{name} {tuple(source.shape)} → {tuple(target.shape)}"
        if source.shape == target.shape:
            target.copy_(source)
            loaded.append(name)
        elif name in convolutions and _widens(source, target):
            target.zero_()
            target[:, : source.shape[1]] = source
            widened.append(shapes)
        else:
            reshaped.append(shapes)
            continue
        taken += source.numel()
    unused = tuple(name for name in weights if name not in ours)
    share = taken / max(1, sum(value.numel() for value in ours.values()))
    return Transfer(tuple(loaded), tuple(widened), tuple(reshaped), tuple(new), unused, share)


def init_from(
    denoiser: Denoiser, path: str | os.PathLike[str], *, mismatch: bool = False
) -> Transfer:
    """Load what fits of the weights of a checkpoint or exported folder into a new model's network.

    Raises:
        CheckpointError: nothing fits; or, without ``mismatch``, the process, the parameterization
            or ``data_std`` differ.
    """
    stored = read_checkpoint(path)
    if not mismatch:
        cure = "set the same, or take them nevertheless with --init_mismatch true"
        check_meaning(stored.config, denoiser, str(path), cure=cure, nearly=True)
    transfer = load_fitting(denoiser.network, stored.weights)
    if not transfer.loaded and not transfer.widened:
        ours = _shortened([*transfer.new, *transfer.reshaped])
        names = f"{_shortened(list(stored.weights))} there, {ours} here"
        raise CheckpointError(f"nothing in {path} fits model.network of this run: {names}")
    return transfer
