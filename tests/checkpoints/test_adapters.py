"""Low-rank adapters in a checkpoint: merged into the weights without peft."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mrdiff import load_model
from mrdiff.checkpoints.adapters import merge
from mrdiff.checkpoints.description import CheckpointError
from tests.tiny_model import write_tiny_checkpoint


def test_merging_by_hand_needs_no_peft() -> None:
    weights = {
        "lin.base_layer.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "lin.base_layer.bias": torch.tensor([5.0, 6.0]),
        "lin.lora_A.default.weight": torch.tensor([[1.0, -1.0]]),
        "lin.lora_B.default.weight": torch.tensor([[2.0], [0.0]]),
        "conv.base_layer.weight": torch.ones(2, 1, 3, 3, dtype=torch.bfloat16),
        "conv.lora_A.default.weight": torch.arange(9.0).reshape(1, 1, 3, 3),
        "conv.lora_B.default.weight": torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1),
        "rest.weight": torch.tensor([7.0]),
    }
    merged = merge(weights, {"rank": 1, "alpha": 3.0})
    assert sorted(merged) == ["conv.weight", "lin.bias", "lin.weight", "rest.weight"]
    assert merged["lin.weight"].tolist() == [[7.0, -4.0], [3.0, 4.0]]
    assert merged["lin.bias"].tolist() == [5.0, 6.0]
    assert merged["conv.weight"].dtype == torch.bfloat16
    assert merged["conv.weight"][1, 0, 0].tolist() == [1.0, -2.0, -5.0]
    del weights["lin.lora_B.default.weight"]
    with pytest.raises(CheckpointError, match="adapter of lin is damaged"):
        merge(weights, {"rank": 1, "alpha": 3.0})


def test_a_checkpoint_with_adapters_loads_without_peft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)  # an import of it fails
    content = torch.load(write_tiny_checkpoint(tmp_path / "old.ckpt"), weights_only=True)
    layer = "denoiser.network.time.layers.0"
    content["mrdiff"]["model"]["lora"] = {"rank": 2, "alpha": 4.0, "targets": None}
    weight = content["state_dict"].pop(f"{layer}.weight")
    content["state_dict"][f"{layer}.base_layer.bias"] = content["state_dict"].pop(f"{layer}.bias")
    content["state_dict"][f"{layer}.base_layer.weight"] = weight
    content["state_dict"][f"{layer}.lora_A.default.weight"] = torch.ones(2, weight.shape[1])
    content["state_dict"][f"{layer}.lora_B.default.weight"] = torch.ones(weight.shape[0], 2)
    torch.save(content, tmp_path / "lora.ckpt")
    network: Any = load_model(tmp_path / "lora.ckpt", "cpu").network
    torch.testing.assert_close(network.time.layers[0].weight, weight + 4, check_stride=False)


@pytest.mark.parametrize("lora", [{}, {"rank": 0, "alpha": 1}, {"rank": "x", "alpha": 1}, [1]])
def test_damaged_numbers_of_adapters_are_one_error(lora: Any) -> None:
    weights = {
        "lin.base_layer.weight": torch.ones(2, 2),
        "lin.lora_A.default.weight": torch.ones(1, 2),
        "lin.lora_B.default.weight": torch.ones(2, 1),
    }
    with pytest.raises(CheckpointError, match="adapter of lin is damaged"):
        merge(weights, lora)
