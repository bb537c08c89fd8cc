"""What running out of memory looks like, and how much of it there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mrdiff.system import memory
from mrdiff.system.memory import available, is_out_of_memory, limited, peak

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "failure",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("not enough memory"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=repr,
)
def test_what_allocators_say(failure: BaseException) -> None:
    assert is_out_of_memory(failure)


@pytest.mark.parametrize(
    "failure", [RuntimeError("shape"), ValueError("not enough memory"), OSError()]
)
def test_what_others_say(failure: BaseException) -> None:
    assert not is_out_of_memory(failure)


def test_torch_s_own_failure_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


def test_a_container_s_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    free = available(CPU)
    assert free is None or free > 0  # there is no group here
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("600\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 50\n")
    assert available(CPU) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert available(CPU) != 450


def test_allocations_fail_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 64 * 2**20)
    if memory._kilobytes(Path("/proc/self/status"), "VmData") is None:
        pytest.skip("this system does not say what a process uses")
    with pytest.raises(RuntimeError) as caught, limited(CPU):
        torch.zeros(2**30)
    assert is_out_of_memory(caught.value)
    assert torch.zeros(2**20).sum() == 0
    assert (peak(CPU) or 0) > 0
