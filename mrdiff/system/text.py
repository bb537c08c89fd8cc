"""Text as it can be shown on a terminal, a page or a picture."""

from __future__ import annotations

import unicodedata

__all__ = ["shown"]

_UNSHOWN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # a terminal obeys them, or they cannot be encoded


def shown(text: object) -> str:
    r"""``text`` with escapes for what would do something to a terminal or a line: ``\n``, ``\x1b``.

    A byte of a file's name that is no UTF-8 is shown as such: ``caf\xe9.png``.
    """
    line = str(text)
    if line.isprintable():
        return line
    return "".join(_escaped(c) if unicodedata.category(c) in _UNSHOWN else c for c in line)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # as os.fsdecode gives a byte
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
