"""What mkdocs does not do by itself: pages that lie outside of docs/, and Sphinx's roles.

The documents are read in the repository, too, where ``../benchmarks/results/paths.md`` is right.
On the site every file that a page links to lies below docs/, in the folder that it has in the
repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
INSIDE = ("docs/", "..", "README.md")  # the site's own front page stands for README.md
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)")
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(?=<code>)")


def place(link: str, of: str) -> str:
    """The path in the repository that a link of the file ``of`` there leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(of), link))


def in_repository(file: File) -> str:
    """Where a page comes from, relative to the repository."""
    return Path(str(file.abs_src_path)).relative_to(ROOT).as_posix()


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add what the pages link to, and what that links to."""
    pages = [file for file in files if file.is_documentation_page()]
    wanted = [name for name in ("CONTRIBUTING.md",) if (ROOT / name).is_file()]
    while pages or wanted:
        for page in pages:
            text = page.content_string
            wanted += [place(link, in_repository(page)) for link in LINK.findall(text)]
        outside = {n for n in wanted if not n.startswith(INSIDE) and (ROOT / n).is_file()}
        new = [n for n in sorted(outside) if files.get_file_from_path(n) is None]
        added = [File.generated(config, n, abs_src_path=str(ROOT / n)) for n in new]
        for file in added:
            files.append(file)
        pages, wanted = [file for file in added if file.is_documentation_page()], []


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links through docs/ instead of out of it."""
    source = in_repository(page.file)

    def led(found: re.Match[str]) -> str:
        target = place(found[1], source).removeprefix("docs/")
        return posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(led, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave ``:class:`` and its like out."""
    return ROLE.sub("", html)
