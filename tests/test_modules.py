"""Modules are small and say what they are; public names are there."""

import ast
import importlib
from pathlib import Path

import pytest

from tests.test_layout import FILES


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_modules_are_small_and_documented(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


def test_public_names_can_be_imported() -> None:
    mrdiff = importlib.import_module("mrdiff")
    for name in mrdiff.__all__:
        assert getattr(mrdiff, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = mrdiff.Missing
