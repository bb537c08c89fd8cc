"""Every measured number of the documents comes from a page of results, and that from a command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from benchmarks.all import PAGES, Block, make_all, page, plan, results_list
from benchmarks.documents import documents, filled, marks, outside, section
from tests.places import ROOT

BLOCKS = plan()
FACTS = {"date": "2026-01-31", "commit": "0123abc", "minutes": 2.5, "machine": "2 cores"}


@pytest.mark.parametrize("name", BLOCKS)
def test_the_commands_are_of_this_project(name: str) -> None:
    for line in BLOCKS[name].lines:
        words = shlex.split(line)
        if words[0] != "mrdiff":
            assert words[:2] == ["python", "-m"], line
            assert (ROOT / words[2].replace(".", "/")).with_suffix(".py").is_file()


@pytest.mark.parametrize("name", BLOCKS)
def test_a_page_was_made_by_its_commands(name: str) -> None:
    text = BLOCKS[name].page.read_text(encoding="utf-8")
    assert "".join(f"    {line}\n" for line in BLOCKS[name].lines) in text
    assert re.search(r"^Made on 20\d\d-\d\d-\d\d at \w{7}.* in [\d.]+ minutes, on ", text, re.M)


def test_there_are_no_other_pages() -> None:
    assert {path.name for path in PAGES.iterdir()} == {f"{name}.md" for name in BLOCKS}


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.stem)
def test_tables_are_those_of_the_pages(path: Path) -> None:
    pages = {name: block.page for name, block in BLOCKS.items()}
    text = path.read_text(encoding="utf-8")
    assert filled(path, pages, results_list(BLOCKS.values())) == text


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.stem)
def test_measured_numbers_stand_in_such_tables(path: Path) -> None:
    """A cell that is nothing but decimals is a measurement."""
    for table in re.findall(r"(?:^\|.*\n)+", outside(path.read_text(encoding="utf-8")), re.M):
        for cell in re.split(r"[|\n]", table):
            assert not re.fullmatch(r"(?=.*\d\.\d)[-+\d\s./>±%]+", cell), table


def test_the_front_page_is_short_and_has_a_table() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name, _ in marks(readme)] == ["evaluate#By task"]
    assert len(readme.split()) <= 900


def test_what_was_made_is_left_unless_it_is_to_be_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.all.PAGES", tmp_path)
    command = "mkdir $RUNS/kept && echo 1.5 --keep $RUNS/kept"  # fails where that is there
    block = Block("one", "Group", "Title", "What?", command)
    for fresh, said in ((False, "in 0"), (False, "before"), (True, "in 0")):
        assert not make_all([block], None, tmp_path / "runs", fresh=fresh)
        assert f"one: made {said}" in capsys.readouterr().out
    assert "1.5 --keep" in block.page.read_text()
    (tmp_path / "one.md").unlink()
    assert make_all([block], None, tmp_path / "runs", fresh=False)
    assert "one: failed, see" in capsys.readouterr().err


def test_a_table_is_copied_with_its_source(tmp_path: Path) -> None:
    block = Block("one", "Group", "Title", "What?", "python -m benchmarks.one\n")
    made = tmp_path / "pages" / "one.md"
    made.parent.mkdir()
    text = "words\n\n## A\n\n| x |\n|---|\n| 1.5 |\n\n## B\n\n| y |\n|---|\n| 2.5 |\n"
    made.write_text(page(block, text, FACTS))
    missing = tmp_path / "pages" / "two.md"
    missing.write_text(page(block, "", None))
    document = tmp_path / "doc.md"
    for name in ("one#B", "one", "two"):
        document.write_text(f"a\n\n<!-- results: {name} -->\nold\n<!-- end -->\n\nb\n")
        result = filled(document, {"one": made, "two": missing}, "")
        assert "old" not in result
        assert result.startswith("a\n")
        assert result.endswith("b\n")
        assert ("| 2.5 |" in result) == ("one" in name)
        assert ("| 1.5 |" in result) == (name == "one")
        assert ("(pages/one.md), 2026-01-31, 2 cores" in result) == ("one" in name)
        document.write_text(result)  # a second time changes nothing
        assert filled(document, {"one": made, "two": missing}, "") == result
    with pytest.raises(KeyError):
        section(made.read_text(), "C")
