"""Which precision a machine gets if nobody chooses one; how processes part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mrdiff.system.devices import pick_precision


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


_PARTING = """
import atexit, sys, torch
from mrdiff.system.devices import leave_group_at_exit
group = torch.distributed
atexit.register(lambda: print("still connected" if group.is_initialized() else "parted"))
leave_group_at_exit()
if len(sys.argv) > 1:
    group.init_process_group("gloo", init_method=sys.argv[1], rank=0, world_size=1)
"""


@pytest.mark.parametrize("connected", [True, False])
def test_a_process_leaves_the_others_before_it_ends(connected: bool, tmp_path: Path) -> None:
    store = [(tmp_path / "store").as_uri()] if connected else []
    command = [sys.executable, "-c", _PARTING, *store]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "parted\n"
