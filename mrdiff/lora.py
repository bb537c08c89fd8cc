"""Low-rank adapters (Hu et al. 2022): W + alpha / rank B A, of which B and A alone are trained.

The package peft puts them into the network. What a checkpoint holds of them is merged into plain
weights when it is read, for which peft is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mrdiff.description import CheckpointError
from mrdiff.freezing import match_names

__all__ = ["LoRA", "MissingPeftError", "add_adapters", "merge", "plain_state"]

_BASE = ".base_layer."  # peft moves the layer that it adapts one level down
_ADAPTER = re.compile(r"(?P<layer>.+)\.lora_(?P<part>[AB])\.default\.weight")


class MissingPeftError(ImportError):
    """The optional package peft is not installed."""


@dataclass(frozen=True)
class LoRA:
    """What to adapt, and how much.

    Args:
        rank: of the adapters.
        alpha: the adapters' product counts ``alpha / rank``.
        targets: names or patterns of layers, linear ones or convolutions; left out, every linear
            layer and every 1x1 convolution.

    Raises:
        ValueError: the rank or alpha is not positive.
    """

    rank: int = 8
    alpha: int = 16
    targets: list[str] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise ValueError(f"model.lora: need rank >= 1 and alpha > 0, got {self}")


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
    )


def _targets(network: nn.Module, patterns: Sequence[str] | None) -> list[str]:
    """The names of the layers to adapt, sorted.

    Raises:
        ValueError: there is none, or a pattern matches none that can be adapted.
    """
    layers = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    }
    if patterns is not None:
        found = match_names(patterns, list(layers), key="model.lora.targets")
    else:
        found = {name for name, layer in layers.items() if _is_linear(layer)}
    if not found:
        raise ValueError("model.lora: the network has no linear layer and no 1x1 convolution")
    return sorted(found)


def add_adapters(network: nn.Module, lora: LoRA) -> None:
    """Put adapters into the network, in place, and freeze everything else.

    They start as zero: the network computes what it did.

    Raises:
        MissingPeftError: peft is not installed.
        ValueError: there is nothing to adapt.
    """
    names = _targets(network, lora.targets)
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise MissingPeftError("model.lora needs peft: pip install 'mrdiff[lora]'") from error
    # As one pattern: peft takes a list of names for endings of names.
    pattern = "|".join(re.escape(name) for name in names)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=pattern)
    inject_adapter_in_model(config, network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(_ADAPTER.fullmatch(name) is not None)


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """The weights beneath the adapters, if there are any, by the names of a plain network.

    They are the network's own: what is copied into them is in the network.
    """
    state = network.state_dict()
    adapted = any(_ADAPTER.fullmatch(name) for name in state)
    return _beneath(state) if adapted else dict(state)


def _beneath(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    kept = {name: value for name, value in weights.items() if not _ADAPTER.fullmatch(name)}
    return {name.replace(_BASE, "."): value for name, value in kept.items()}


def merge(weights: Mapping[str, Tensor], lora: Mapping[str, Any]) -> dict[str, Tensor]:
    """Plain weights that compute what the adapted ones do: W + alpha / rank B A.

    Args:
        weights: of a network with adapters, as peft names them.
        lora: ``rank`` and ``alpha`` of the adapters.

    Raises:
        CheckpointError: the parts do not belong together.
    """
    merged = _beneath(weights)
    for name, down in weights.items():
        match = _ADAPTER.fullmatch(name)
        if match is None or match["part"] == "B":
            continue
        try:
            up = weights[f"{match['layer']}.lora_B.default.weight"]
            base = merged[f"{match['layer']}.weight"]
            # A convolution's A has its kernel, and B is 1x1: both are matrices once flat.
            change = up.flatten(1).float() @ down.flatten(1).float()
            scale = float(lora["alpha"]) / int(lora["rank"])
            added = base.float() + scale * change.reshape(base.shape)
        except (KeyError, RuntimeError) as error:
            reason = f"the adapter of {match['layer']} is damaged"
            raise CheckpointError(f"{reason}: {str(error).splitlines()[0]}") from error
        merged[f"{match['layer']}.weight"] = added.to(base.dtype)
    return merged
