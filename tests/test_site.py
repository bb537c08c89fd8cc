"""The documents become a site without a warning, whose pages load nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

pytest.importorskip("mkdocs", reason="needs mrdiff[docs]")
pytest.importorskip("mkdocstrings", reason="needs mrdiff[docs]")
LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^\s\">]+")
LED_OUT = re.compile(r"href=\"?[^\s\">]*/(?:benchmarks/results/\w+\.md|SECURITY\.md)")


def test_the_site_is_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*.html")}
    assert {"index.html", "api/index.html", "benchmarks/results/paths/index.html"} <= {*pages}
    for name, path in pages.items():
        text = path.read_text(encoding="utf-8")
        assert LOADED.findall(text) + LED_OUT.findall(text) == [], name
    api = pages["api/index.html"].read_text(encoding="utf-8")
    assert 'id="mrdiff.Restorer.from_checkpoint"' in api
    assert ":class:" not in api
