"""Fixtures shared by the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.places import SHARED


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    # Contending torch threads are many times slower than one on a busy machine.
    import torch

    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Generated data of the tests stays out of the user's cache."""
    os.environ.setdefault("MRDIFF_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real test photos next to the project, which a bare clone does not have."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the test photos in ../shared, which are not part of the project")
    return SHARED
