"""The notebooks run as they are, in a kernel of their own, and are stored without what came out."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.places import ROOT

nbformat = pytest.importorskip("nbformat", reason="needs mrdiff[notebooks]")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def read(path: Path) -> Any:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(path: Path) -> None:
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
            compile(cell.source, str(path), "exec")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_within_a_minute(path: Path, tmp_path: Path, monkeypatch: Any) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs mrdiff[notebooks]")
    pytest.importorskip("ipykernel", reason="needs mrdiff[notebooks]")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    begun = time.monotonic()
    nbclient.NotebookClient(
        read(path), timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert time.monotonic() - begun < 120  # a minute, unless the machine is busy
    assert not list(tmp_path.iterdir())
