"""Restoring folders as they are found: names, links, logs and disks that do not do."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mrdiff.cli.sample import command as sample
from mrdiff.cli.sample import results
from mrdiff.cli.sample import run as run_module
from mrdiff.photo import PhotoError
from tests.cli.test_sample import checkpoint, work

__all__ = ["checkpoint", "work"]  # fixtures


def run(checkpoint: Path, *flags: str, source: str = "lq", output: str = "out") -> int:
    given = [] if "--input" in flags else ["--input", source]
    fixed = ["--checkpoint", str(checkpoint), *given, "--output", output]
    return sample.main([*fixed, "--device", "cpu", "--nfe", "1", *flags], program="sample.py")


def written(folder: str) -> list[str]:
    found = Path(folder).rglob("*")
    return sorted(path.relative_to(folder).as_posix() for path in found if path.is_file())


def copies(*names: str) -> None:
    for folder in ("lq", "gt"):
        content = Path(folder, "a.png").read_bytes()
        for name in names:
            Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, name).write_bytes(content)


@pytest.mark.skipif(os.name != "posix", reason="names are no bytes here")
def test_strange_names_are_restored_and_shown(work: Path, checkpoint: Path, capsys) -> None:
    strange = [os.fsdecode(b"caf\xe9.png"), "new\nline.png", "\x1b[31mred.png", "12:30.png"]
    copies(*strange)
    flags = ["--reference", "gt", "--report", "r.html", "--log", "log", "--compare"]
    flags += ["--sampler", "perceptual", "--samples", "2"]
    assert run(checkpoint, *flags) == 0
    assert {*written("out")} >= {*strange, *(f"compare/{name}" for name in strange)}
    seen = capsys.readouterr()
    for name in (r"caf\xe9.png", r"new\nline.png", r"\x1b[31mred.png"):
        assert f"\n{name} " in seen.out
        assert f">{name}<" in Path("r.html").read_text(encoding="utf-8")
    assert "\x1b[31mred" not in seen.out + seen.err
    logged = {json.loads(line)["file"] for line in Path("log").read_text().splitlines()}
    assert {f"lq/{name}" for name in strange} < logged
    (work / "lq" / strange[0]).write_bytes(b"broken")
    assert run(checkpoint, source=f"lq/{strange[0]}") == 1
    assert r"failed: lq/caf\xe9.png: " in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="needs links and pipes")
def test_what_cannot_be_reached_fails_and_the_rest_goes_on(
    work: Path, checkpoint: Path, capsys
) -> None:
    for link, target in {"self.png": "self.png", "gone.png": "none", "s/up": ".."}.items():
        Path("lq", link).symlink_to(target)
    Path("lq/album").symlink_to("../gt")
    os.mkfifo("lq/pipe.png")
    for name in ("x.heic", "y.heic", "notes.txt"):
        Path("lq", name).touch()
    assert run(checkpoint) == 1
    assert {*written("out")} >= {"a.png", "album/a.png", "album/s/c.png", "b.jpg", "s/c.png"}
    seen = capsys.readouterr()
    assert "left out: 2 .heic: they are not read: lq/x.heic, lq/y.heic\n" in seen.err
    for line in (
        "lq/pipe.png: a pipe, not a file",
        "lq/s/up: a link to a folder that it lies in",
        "lq/gone.png: no such file",
    ):
        assert f"failed: {line}\n" in seen.err
    assert "failed: lq/self.png: " in seen.err
    assert "notes" not in seen.err
    assert re.search(r"restored \d+, skipped 0, failed 4, left out 2 -> out", seen.out)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_log_that_is_full_costs_nothing_else(work: Path, checkpoint: Path, capsys) -> None:
    assert run(checkpoint, "--log", "/dev/full") == 1
    assert written("out") == ["a.png", "b.jpg", "s/c.png"]
    seen = capsys.readouterr()
    said = "failed: --log /dev/full: No space left on device: it is not whole"
    assert [line for line in seen.err.splitlines() if "failed" in line] == [said]
    assert "restored 3, skipped 0, failed 0" in seen.out


def test_a_report_that_fails_costs_nothing_else(
    work: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from mrdiff.cli.sample import html

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "r.html")

    monkeypatch.setattr(html, "write_text", full)
    assert run(checkpoint, "--reference", "gt", "--report", "r.html", "--compare") == 1
    assert len(written("out")) == 6
    seen = capsys.readouterr()
    assert "failed: --report r.html: No space left on device\n" in seen.err
    assert "restored 3, skipped 0, failed 0" in seen.out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--log", "lq/a.png"], "--log lq/a.png: is named as a photo"),
        (["--log", "lq/z.JPEG"], "--log lq/z.JPEG: is named as a photo"),
        (["--reference", "gt", "--report", "gt/a.png"], "--report gt/a.png: is to be named .html"),
        (["--reference", "gt", "--report", "lq.html"], "--report lq.html: is a folder"),
        (["--log", "lq/a.png/log"], "--log lq/a.png/log: lq/a.png is not a folder"),
        (["--log", "out"], "--log out: is a folder"),
        (["--log", "out/x"], "--log would overwrite out/x"),
        (["--reference", "gt", "--log", "x.html", "--report", "x.html"], "would overwrite x.html"),
        (["--output", "lq/a.png/out"], "lq/a.png is not a folder"),
        (["--compare"], "out/compare would hold restored photos and what a flag writes there"),
        (["--format", "webp"], "File name too long"),
        (["--input", "lq/x.gif", "--output", "lq"], "--output would overwrite lq/x.png"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_model_is_read(
    work: Path, checkpoint: Path, flags: list[str], said: str, monkeypatch, capsys
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(run_module, "_open_model", never)
    if "--compare" in flags:
        copies("compare/d.png")
    if "webp" in flags:
        copies("n" * 251 + ".png")
    if "out/x" in flags:
        copies("x/e.png")
    if "lq/x.gif" in flags:
        Image.new("RGB", (8, 8)).save("lq/x.gif")
        copies("x.png")
    Path("out/s").mkdir(parents=True)
    Path("lq.html").mkdir()
    before = {path: path.read_bytes() for path in work.rglob("*.*") if path.is_file()}
    assert run(checkpoint, *flags) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in work.rglob("*.*") if path.is_file()} == before


def test_a_page_whose_photo_is_gone_is_said(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from argparse import Namespace

    from mrdiff.cli.sample import html
    from mrdiff.cli.sample.photos import Outcome

    def gone(*_: Any, **__: Any) -> None:
        raise PhotoError("out/a.png: no such file")

    monkeypatch.setattr(html, "write_report", gone)
    outcome = Outcome()
    options = Namespace(checkpoint=Path("c"), report=Path("r.html"), protocol="standard")
    results.report_run(options, None, outcome, [])
    assert outcome.lost == ["--report r.html: out/a.png: no such file"]
