"""Which precision a machine gets if nobody chooses one."""

from __future__ import annotations

import pytest
import torch

from mrdiff.cli.devices import pick_precision


def a_machine(
    monkeypatch: pytest.MonkeyPatch, *, cpu: dict[str, bool], gpu: bool | None = None
) -> None:
    """One whose CPU has the capabilities, and a GPU that computes in bfloat16, or not, or none."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bool(gpu))


@pytest.mark.parametrize("what", ["avx512_bf16", "amx_bf16"])
@pytest.mark.parametrize("accelerator", ["auto", "cpu"])
def test_a_cpu_that_computes_in_bfloat16_does(
    accelerator: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_machine(monkeypatch, cpu={"avx2": True, what: True})
    assert pick_precision(accelerator) == "bf16-mixed"
    a_machine(monkeypatch, cpu={"avx2": True, what: False})
    assert pick_precision(accelerator) == "32-true"


def test_a_torch_that_does_not_tell_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert pick_precision("cpu") == "32-true"


@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
def test_the_gpu_decides_where_there_is_one(
    accelerator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_machine(monkeypatch, cpu={}, gpu=True)
    assert pick_precision(accelerator) == "bf16-mixed"
    assert pick_precision("cpu") == "32-true"
    a_machine(monkeypatch, cpu={"avx512_bf16": True}, gpu=False)
    assert pick_precision(accelerator) == "32-true"
    assert pick_precision("cpu") == "bf16-mixed"


def test_what_nobody_measured_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    a_machine(monkeypatch, cpu={"avx512_bf16": True})
    assert pick_precision("mps") == "32-true"
    assert pick_precision("no such thing") == "32-true"
