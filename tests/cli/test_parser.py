"""What all commands parse alike."""

import sys
from pathlib import Path

import pytest

from mrdiff.cli.common.parser import LineParser


def test_a_trusted_package_may_lie_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program ``mrdiff`` itself does not look there; it is searched last, and only if asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    parser = LineParser()
    parser.add_allow_package()
    parser.parse([])
    assert str(tmp_path) not in sys.path
    parser.parse(["--allow_package", "mine"])
    assert sys.path[-1] == str(tmp_path)
