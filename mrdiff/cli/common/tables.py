"""Tables of cells that are text: aligned for a terminal, or in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["aligned", "markdown"]

Cells = Sequence[Sequence[str]]


def aligned(table: Cells) -> list[str]:
    """A line a row, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in table
    ]


def markdown(table: Cells) -> str:
    """A table whose first row is its head, the first column to the left."""
    head, *rows = table
    rule = ["---", *["---:"] * (len(head) - 1)]
    lines = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in (head, rule, *rows))
    return "\n".join(f"| {line} |" for line in lines)
