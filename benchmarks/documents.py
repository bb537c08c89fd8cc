"""The tables of README.md and docs/: what stands between two marks is copied from a page.

    <!-- results: NAME#Heading -->
    ...
    <!-- end -->

takes the tables under ``## Heading`` of benchmarks/results/NAME.md, without a heading all of the
page, and under them a line that says by which command, when and where they were made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from mrdiff.system.files import write_text

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/*.md", "mrdiff/models/*/README.md")
_MARKED = re.compile(r"(<!-- results: ([\w#. ,'-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_MADE = re.compile(r"^Made on (\S+) at .*? minutes, on (.*)\.$", re.MULTILINE)  # by benchmarks.all


def documents() -> list[Path]:
    """The files whose tables are filled in."""
    return sorted(path for pattern in DOCUMENTS for path in ROOT.glob(pattern))


def marks(text: str) -> list[tuple[str, str]]:
    """What each mark of a document names, and what stands there."""
    return [(match[2], match[3]) for match in _MARKED.finditer(text)]


def outside(text: str) -> str:
    """A document without what stands between marks."""
    return _MARKED.sub("", text)


def section(page: str, heading: str) -> str:
    """The tables under a heading of a page, or of all of it.

    Raises:
        KeyError: there is no such heading, or no table under it.
    """
    parts = re.split(r"^## (.*)$", page, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    text = sections[heading] if heading else page
    blocks = groupby(text.splitlines(), lambda line: line.startswith("|"))
    tables = ["\n".join(lines) for is_table, lines in blocks if is_table]
    if not tables:
        raise KeyError(heading)
    return "\n\n".join(tables)


def filled(document: Path, pages: Mapping[str, Path], listed: str) -> str:
    """A document with all its tables from the pages."""

    def fill_in(match: re.Match[str]) -> str:
        name, _, heading = match[2].partition("#")
        if name == "list":
            return f"{match[1]}\n{listed}{match[4]}"
        page = pages[name].read_text(encoding="utf-8")
        made = _MADE.search(page)
        if made is None:
            return f"{match[1]}\n*To be made: `python -m benchmarks.all {name}`.*\n\n{match[4]}"
        place = os.path.relpath(pages[name], document.parent).replace(os.sep, "/")
        source = f"*[`python -m benchmarks.all {name}`]({place}), {made[1]}, {made[2]}.*"
        return f"{match[1]}\n{section(page, heading)}\n\n{source}\n\n{match[4]}"

    return _MARKED.sub(fill_in, document.read_text(encoding="utf-8"))


def fill(pages: Mapping[str, Path], listed: str) -> None:
    """Fill in all documents; those without a change are left as they are."""
    for document in documents():
        text = filled(document, pages, listed)
        if text != document.read_text(encoding="utf-8"):
            write_text(document, text)
            print(f"filled in {document.relative_to(ROOT)}")


def results_list(blocks: Iterable[Any]) -> str:
    """The pages by group, for docs/results.md."""

    def lines() -> Iterator[str]:
        for group, members in groupby(blocks, lambda block: block.group):
            yield f"## {group}\n\n| page | what it answers |\n|---|---|"
            for block in members:
                yield f"| [{block.title}](../benchmarks/results/{block.name}.md) | {block.asks} |"
            yield ""

    return "\n".join(lines())
