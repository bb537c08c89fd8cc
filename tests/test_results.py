"""Every measured number of the documents comes from a page of results, and that from a command."""

from __future__ import annotations

import re
import shlex

import pytest

from benchmarks.all import PAGES, plan, results_list
from benchmarks.documents import documents, filled, marks, outside
from tests.places import ROOT

BLOCKS = plan()
# Tables that have decimals which nobody measured, by a cell of their heads.
NOT_MEASURED: set[str] = set()


def tables(text: str) -> list[str]:
    return re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_page_was_made_by_its_command(name: str) -> None:
    page = BLOCKS[name].page.read_text(encoding="utf-8")
    for line in BLOCKS[name].lines:
        assert f"    {line}\n" in page
    assert re.search(r"^Made on 20\d\d-\d\d-\d\d at \w{7}.* in [\d.]+ minutes, on ", page, re.M)


def test_there_are_no_other_pages() -> None:
    assert {path.stem for path in PAGES.iterdir()} == {*BLOCKS}


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.stem)
def test_tables_are_those_of_the_pages(document: object) -> None:
    path = next(each for each in documents() if each == document)
    pages = {name: block.page for name, block in BLOCKS.items()}
    assert filled(path, pages, results_list(BLOCKS.values())) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.stem)
def test_measured_numbers_stand_in_such_tables(document: object) -> None:
    path = next(each for each in documents() if each == document)
    for table in tables(outside(path.read_text(encoding="utf-8"))):
        head = table.split("|")[1].strip()
        assert head in NOT_MEASURED or not re.search(r"\d\.\d", table), table


def test_the_front_page_has_a_table() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name, _ in marks(readme)]
    assert len(readme.split()) <= 900


@pytest.mark.parametrize("name", BLOCKS)
def test_commands_are_of_this_project(name: str) -> None:
    for line in BLOCKS[name].lines:
        words = shlex.split(line)
        assert words[0] == "mrdiff" or words[:2] == ["python", "-m"], line
        if words[0] == "python":
            assert (ROOT / words[2].replace(".", "/")).with_suffix(".py").is_file()
