"""Cores that a process may use: its affinity mask and its container's quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mrdiff.system.cores import available_cores


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 8),
        ("300000 100000", 3),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("9900000 100000", 8),
        ("", 8),
        ("rubbish", 8),
    ],
)
def test_a_quota_of_version_2(eight: None, quota: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert available_cores(cgroup=tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("400000", 4)])
def test_a_quota_of_version_1(eight: None, quota: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cores(cgroup=tmp_path) == cores


def test_without_control_groups_or_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores(cgroup=tmp_path / "none") == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores(cgroup=tmp_path / "none") == 6
