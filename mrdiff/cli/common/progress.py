"""A bar of network calls, on standard error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

__all__ = ["counting_calls"]


@contextlib.contextmanager
def counting_calls(what: str, calls: int) -> Iterator[Callable[..., None]]:
    """Gives what is called after each of so many calls, or with a number of them."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=calls)
        yield lambda done=1: progress.advance(task, done)
