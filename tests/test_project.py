"""The files about the project: what the servers run exists, and versions agree."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import mrdiff
from mrdiff.cli.main import COMMANDS
from tests.places import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BIN = Path(sys.executable).parent


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def exists(words: list[str]) -> bool:
    """Whether there is the program of a command, and its module or subcommand."""
    match words:
        case ["cd" | "test", *_]:
            return True
        case ["python", "-m", module, *_]:
            return importlib.util.find_spec(module) is not None
        case ["mrdiff", command, *_]:
            return command in COMMANDS
        case _:
            return os.access(ROOT / words[0], os.X_OK) or os.access(BIN / words[0], os.X_OK)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_what_there_is(path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs mrdiff[docs]")
    pytest.importorskip("build", reason="needs mrdiff[dev]")
    jobs = read(path)["jobs"].values()
    assert {need for job in jobs for need in [job.get("needs")] if need} <= {*read(path)["jobs"]}
    lines = [
        line for job in jobs for step in job["steps"] for line in step.get("run", "").split("\n")
    ]
    for line in filter(None, lines):
        assert exists(shlex.split(line)), line


def test_hooks_before_a_commit_fetch_nothing() -> None:
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        assert importlib.util.find_spec(hook["entry"].split()[0]) is not None


def test_the_citation_is_of_this_version() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= {*citation}
    assert citation["version"] == mrdiff.__version__
    for reference in citation["references"]:
        assert reference["type"] == "conference-paper"
        assert {"title", "authors", "year", "conference"} <= {*reference}
