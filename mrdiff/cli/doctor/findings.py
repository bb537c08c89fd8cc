"""What a check finds: something wrong, the files it is about, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

_SHOWN = 3  # files of a finding that are named
_MARKS = {"error": ("✗", "bold red"), "warning": ("!", "bold yellow")}


@dataclass(frozen=True)
class Finding:
    """One problem: an error ruins the run or its results, a warning may be meant."""

    level: Literal["error", "warning"]
    what: str  # is wrong, without the files
    cure: str
    files: tuple[str, ...] = ()  # all that it is about


def error(what: str, cure: str, files: Iterable[Path | str] = ()) -> Finding:
    return Finding("error", what, cure, tuple(map(str, files)))


def warning(what: str, cure: str, files: Iterable[Path | str] = ()) -> Finding:
    return Finding("warning", what, cure, tuple(map(str, files)))


def some(
    make: Callable[[str, str, Iterable[Path | str]], Finding],
    what: str,
    cure: str,
    files: Sequence[Path | str],
) -> list[Finding]:
    """A finding about files, if there are any."""
    return [make(what, cure, files)] if files else []


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 image``, ``2 images``, ``12,345 images``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size(amount: float) -> str:
    """Bytes in GiB, or MiB where they are few."""
    number, unit = (amount / 2**30, "GiB") if amount >= 2**30 else (amount / 2**20, "MiB")
    return f"{number:.0f} {unit}" if number >= 100 else f"{number:.1f} {unit}"


def span(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for least, unit, name in ((48 * 3600, 86400, "days"), (5400, 3600, "hours"), (90, 60, "min")):
        if seconds >= least:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.3g} s"


class Report:
    """Prints sections line by line as they are known, and counts what was found."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.findings: list[Finding] = []

    @property
    def errors(self) -> int:
        return sum(finding.level == "error" for finding in self.findings)

    def section(self, title: str) -> None:
        self._print(Text(f"\n{title}", style="bold"))

    def good(self, text: str) -> None:
        self._print(Text("  ✓ ", style="green").append(text, style="default"))

    def note(self, text: str) -> None:
        """Something that was not checked, or is neither good nor bad."""
        self._print(Text("  - ", style="dim").append(text, style="default"))

    def add(self, findings: Sequence[Finding], *, otherwise: str = "") -> None:
        """Print findings; ``otherwise`` is good if there are none."""
        for finding in findings:
            self._finding(finding)
        self.findings += findings
        if otherwise and not findings:
            self.good(otherwise)

    def value(self, name: str, value: str) -> None:
        self._print(Text(f"  {name:<20}").append(value, style="bold"))

    def _finding(self, finding: Finding) -> None:
        mark, style = _MARKS[finding.level]
        line = Text(f"  {mark} {finding.level}: ", style=style)
        self._print(line.append(finding.what, style="default"))
        for file in finding.files[:_SHOWN]:
            self._print(Text(f"      {file}", style="cyan"))
        if len(finding.files) > _SHOWN:
            self._print(Text(f"      and {len(finding.files) - _SHOWN:,} more"))
        self._print(Text("    cure: ", style="bold").append(finding.cure, style="default"))

    def _print(self, text: Text) -> None:
        # Lines are not wrapped: paths stay whole, and a terminal wraps by itself.
        self.console.print(text, soft_wrap=True, highlight=False)
