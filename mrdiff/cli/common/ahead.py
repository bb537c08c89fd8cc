"""Threads beside the network: what comes next is read, what is done is written, meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["WriteBehind", "read_ahead"]

T = TypeVar("T")


class _Waiting(Generic[T]):
    """Items between the thread that makes them and the one that uses them."""

    def __init__(self, size: Callable[[T], int], budget: int) -> None:
        self._size, self._budget = size, budget
        self._items: deque[T] = deque()
        self._held = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._ended = self._given_up = False

    def fill(self, items: Iterable[T]) -> None:
        """Take items in until they end or nobody wants them any more."""
        try:
            for item in items:
                size = self._size(item)
                with self._changed:
                    self._changed.wait_for(lambda size=size: self._room(size))  # type: ignore[misc]
                    if self._given_up:
                        return
                    self._items.append(item)
                    self._held += size
                    self._changed.notify_all()
        except BaseException as error:  # it belongs to the thread that uses the items
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _room(self, size: int) -> bool:
        return self._given_up or not self._items or self._held + size <= self._budget

    def drain(self) -> Iterator[T]:
        """The items in order; an error of :meth:`fill` after those before it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._items) or self._ended)
                if not self._items:
                    break
                item = self._items.popleft()
                self._held -= self._size(item)
                self._changed.notify_all()
            yield item
            del item  # or it would be held while the next one is awaited
        if self._error is not None:
            raise self._error

    def give_up(self) -> None:
        """Let the filling thread end."""
        with self._changed:
            self._given_up = True
            self._items.clear()
            self._changed.notify_all()


def read_ahead(items: Iterable[T], *, size: Callable[[T], int], budget: int) -> Iterator[T]:
    """Make items in a thread while those before them are used, in order.

    Args:
        items: made one by one; their errors are raised where the items are used.
        size: of an item.
        budget: size of all that wait together; a single one may be larger.
    """
    waiting: _Waiting[T] = _Waiting(size, budget)
    thread = threading.Thread(target=waiting.fill, args=(items,), daemon=True)
    thread.start()
    try:
        yield from waiting.drain()
    finally:
        waiting.give_up()


class WriteBehind:
    """Do things in a thread, in the order given; ``most`` may wait, then giving waits, too.

    A context: on leaving it everything is done, or after an error what has not begun is dropped.
    """

    def __init__(self, most: int = 2) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._room = threading.BoundedSemaphore(most + 1)
        self._futures: list[Future[None]] = []

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for future in self._futures:
                future.result()

    def __call__(self, work: Callable[[], None]) -> None:
        """Do ``work`` later; what it raises is raised on leaving the context."""
        self._room.acquire()
        future = self._pool.submit(work)
        self._futures = [other for other in self._futures if not _fine(other)] + [future]
        future.add_done_callback(lambda _: self._room.release())


def _fine(future: Future[None]) -> bool:
    with contextlib.suppress(Exception):
        return future.done() and future.exception() is None
    return False
