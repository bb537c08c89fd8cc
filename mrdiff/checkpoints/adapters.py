"""Low-rank adapters in a state dict, as peft names them: merged, or taken off."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mrdiff.checkpoints.description import CheckpointError

_BASE = ".base_layer."  # peft moves the layer that it adapts one level down
_ADAPTER = re.compile(r"(?P<layer>.+)\.lora_(?P<part>[AB])\.default\.weight")


def is_adapter(name: str) -> bool:
    return _ADAPTER.fullmatch(name) is not None


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """The weights beneath the adapters, if there are any, by the names of a plain network.

    They are the network's own: what is copied into them is in the network.
    """
    return _beneath(network.state_dict())


def _beneath(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not any(map(is_adapter, weights)):
        return dict(weights)
    return {n.replace(_BASE, "."): value for n, value in weights.items() if not is_adapter(n)}


def check_adapters(weights: Mapping[str, Tensor], lora: Mapping[str, Any] | None) -> None:
    """Raise CheckpointError unless there are adapters of the described rank, or neither."""
    downs = {name: w for name, w in weights.items() if ".lora_A." in name and is_adapter(name)}
    if bool(downs) != (lora is not None):
        raise CheckpointError("its weights have adapters and its description none, or vice versa")
    for name, down in downs.items():
        if lora is not None and down.shape[:1] != (lora["rank"],):
            raise CheckpointError(f"its adapter {name} is not of the rank {lora['rank']}")


def merge(weights: Mapping[str, Tensor], lora: Mapping[str, Any]) -> dict[str, Tensor]:
    """Plain weights that compute what the adapted ones do: W + alpha / rank B A.

    ``lora`` has the ``rank`` and the ``alpha`` of the adapters.

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
            up, down = up.flatten(1).float(), down.flatten(1).float()
            if len(up) * down.shape[1] != base.numel():  # before it is multiplied out
                raise ValueError(f"{len(up)} x {down.shape[1]} numbers for {base.numel()}")
            change = up @ down
            scale = float(lora["alpha"]) / int(lora["rank"])
            added = base.float() + scale * change.reshape(base.shape)
        except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            reason = f"the adapter of {match['layer']} is damaged"
            raise CheckpointError(f"{reason}: {str(error).splitlines()[0]}") from error
        merged[f"{match['layer']}.weight"] = added.to(base.dtype)
    return merged
