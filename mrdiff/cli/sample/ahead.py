"""Threads beside the network: what comes next is read, what is done is written, meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

__all__ = ["InTurn", "WriteBehind", "read_ahead"]

S = TypeVar("S")
T = TypeVar("T")

_LEAST = 3  # of what is to be written may be pending, however large


def read_ahead(
    make: Callable[[S], T],
    items: Sequence[S],
    *,
    size: Callable[[T], int],
    budget: int,
    threads: int = 1,
) -> Iterator[T]:
    """``map(make, items)``, made by threads while those before are used.

    Those that wait or are being made, which are taken to be as large as the last one, have at most
    ``budget`` together; a single one may have more. What fails while an item is made is raised
    where the items are used, after those before it.
    """
    ahead: deque[Future[T]] = deque()
    changed = threading.Condition()
    likely, ended = budget, False

    def has_room() -> bool:
        waiting = sum(size(one.result()) for one in ahead if one.done() and not one.exception())
        making = sum(not one.done() for one in ahead)
        within = waiting + (making + 1) * likely <= budget
        return ended or not ahead or (making < threads and within)

    def wake(made: Future[T] | None = None) -> None:
        nonlocal likely
        with changed:
            likely = likely if made is None or made.exception() else size(made.result())
            changed.notify_all()

    def feed() -> None:
        with ThreadPoolExecutor(threads) as pool:
            for item in items:
                with changed:
                    changed.wait_for(has_room)
                    if ended:
                        break
                    made = pool.submit(make, item)
                    ahead.append(made)
                made.add_done_callback(wake)
        end()

    def end() -> None:
        nonlocal ended
        ended = True
        wake()

    threading.Thread(target=feed, daemon=True).start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: ahead[0].done() if ahead else ended)
                if not ahead:
                    return
                made = ahead.popleft()
                changed.notify_all()
            yield made.result()
            del made  # or it would be held while the next one is awaited
    finally:
        end()


class WriteBehind:
    """Do things in threads; giving one waits while those pending have more than ``budget``.

    A context: on leaving it everything is done, or after an error what has not begun is dropped.
    """

    def __init__(self, *, budget: int, threads: int = 1) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._budget, self._changed = budget, threading.Condition()
        self._sizes: dict[Future[None], int] = {}

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for future in self._sizes:
                future.result()

    def __call__(self, work: Callable[[], None], *, size: int = 0) -> None:
        """Do ``work`` later; what it raises is raised on leaving the context."""
        with self._changed:
            self._changed.wait_for(partial(self._has_room, size))
            kept = {f: held for f, held in self._sizes.items() if not f.done() or f.exception()}
            future = self._pool.submit(work)
            self._sizes = {**kept, future: size}
        future.add_done_callback(self._wake)

    def _has_room(self, size: int) -> bool:
        pending = [held for future, held in self._sizes.items() if not future.done()]
        return len(pending) < _LEAST or sum(pending) + size <= self._budget

    def _wake(self, _: Future[None]) -> None:
        with self._changed:
            self._changed.notify_all()


class InTurn:
    """Call things in the order of their numbers, from 0 on, whatever thread brings them when."""

    def __init__(self) -> None:
        self._next, self._brought = 0, dict[int, Callable[[], None]]()
        self._lock = threading.Lock()

    def __call__(self, number: int, work: Callable[[], None]) -> None:
        with self._lock:
            self._brought[number] = work
            while (first := self._brought.pop(self._next, None)) is not None:
                self._next += 1
                first()

    def close(self) -> None:
        """Call what still waits for others, which will not come."""
        for _, work in sorted(self._brought.items()):
            work()
