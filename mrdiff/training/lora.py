"""Low-rank adapters (Hu et al. 2022): W + alpha / rank B A, of which B and A alone are trained.

The package peft puts them into the network; reading a checkpoint of them does not need it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from mrdiff.checkpoints.adapters import is_adapter
from mrdiff.training.freezing import match_names


class MissingPeftError(ImportError):
    """The optional package peft is not installed."""


@dataclass(frozen=True)
class LoRA:
    """What to adapt, and how much.

    Args:
        rank: of the adapters, at least 1.
        alpha: the adapters' product counts ``alpha / rank``; positive.
        targets: names or patterns of layers, linear ones or convolutions; left out, every linear
            layer and every 1x1 convolution.
    """

    rank: int = 8
    alpha: int = 16
    targets: list[str] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise ValueError(f"model.lora: need rank >= 1 and alpha > 0, got {self}")


def _targets(network: nn.Module, patterns: Sequence[str] | None) -> list[str]:
    """The names of the layers to adapt, sorted."""
    kernels = {
        name: getattr(layer, "kernel_size", (1, 1))
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    }
    if patterns is not None:
        found = match_names(patterns, list(kernels), key="model.lora.targets")
    else:
        found = {name for name, kernel in kernels.items() if kernel == (1, 1)}
    if not found:
        raise ValueError("model.lora: the network has no linear layer and no 1x1 convolution")
    return sorted(found)


def add_adapters(network: nn.Module, lora: LoRA) -> None:
    """Put adapters, which are zero, into the network, in place, and freeze everything else.

    Raises:
        MissingPeftError: peft is not installed.
        ValueError: there is nothing to adapt, or a pattern of the targets matches nothing.
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
        parameter.requires_grad_(is_adapter(name))
