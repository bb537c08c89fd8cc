"""Threads beside the network: what comes next is read, what is done is written, meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

__all__ = ["WriteBehind", "read_ahead"]

T = TypeVar("T")


def read_ahead(items: Iterable[T], *, size: Callable[[T], int], budget: int) -> Iterator[T]:
    """Make items in a thread while those before them are used, in order.

    Those that wait have at most ``budget`` together, a single one may have more. What fails while
    an item is made is raised where the items are used, after those before it.
    """
    waiting: deque[T] = deque()
    changed = threading.Condition()
    held, ended, given_up = 0, False, False
    failure: BaseException | None = None

    def has_room(wanted: int) -> bool:
        return given_up or not waiting or held + wanted <= budget

    def fill() -> None:
        nonlocal held, ended, failure
        try:
            for item in items:
                with changed:
                    changed.wait_for(partial(has_room, size(item)))
                    if given_up:
                        return
                    waiting.append(item)
                    held += size(item)
                    changed.notify_all()
        except BaseException as error:  # it belongs to the thread that uses the items
            failure = error
        finally:
            with changed:
                ended = True
                changed.notify_all()

    threading.Thread(target=fill, daemon=True).start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: bool(waiting) or ended)
                if not waiting:
                    break
                item = waiting.popleft()
                held -= size(item)
                changed.notify_all()
            yield item
            del item  # or it would be held while the next one is awaited
        if failure is not None:
            raise failure
    finally:
        with changed:
            given_up = True
            waiting.clear()
            changed.notify_all()


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
        self._futures = [one for one in self._futures if not one.done() or one.exception()]
        self._futures.append(self._pool.submit(work))
        self._futures[-1].add_done_callback(lambda _: self._room.release())
