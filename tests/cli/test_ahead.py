"""Threads beside the network: order, bounds, errors and endings."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from mrdiff.cli.sample.ahead import WriteBehind, read_ahead


def until(condition: object, *, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.002)
    assert condition()  # type: ignore[operator]


def test_items_come_in_order_and_what_waits_is_bounded() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(20):
            made.append(i)
            yield i

    used = []
    for i in read_ahead(items(), size=lambda _: 10, budget=30):
        used.append(i)
        until(lambda: len(made) == min(20, len(used) + 4))  # three wait, one is in the making
        time.sleep(0.01)
        assert len(made) <= len(used) + 4
    assert used == list(range(20))


def test_one_item_larger_than_the_budget_is_let_through() -> None:
    assert list(read_ahead([50, 1, 50], size=lambda i: i, budget=2)) == [50, 1, 50]


def test_an_error_comes_after_what_was_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk")

    read = read_ahead(items(), size=lambda _: 1, budget=9)
    assert next(read) == 1
    with pytest.raises(OSError, match="the disk"):
        next(read)


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    for _ in read_ahead(iter(range(10**9)), size=lambda _: 1, budget=3):
        break
    until(lambda: threading.active_count() == before)


def test_work_is_done_in_order_and_all_of_it() -> None:
    done: list[int] = []
    with WriteBehind(most=2) as behind:
        for i in range(30):
            behind(lambda i=i: done.append(i))  # type: ignore[misc]
    assert done == list(range(30))


def test_giving_waits_while_too_much_is_pending() -> None:
    gate = threading.Event()
    given: list[int] = []

    def give() -> None:
        with WriteBehind(most=2) as behind:
            for i in range(6):
                behind(gate.wait)
                given.append(i)

    thread = threading.Thread(target=give)
    thread.start()
    until(lambda: len(given) == 3)  # one in work, two waiting
    time.sleep(0.02)
    assert len(given) == 3
    gate.set()
    thread.join(5)
    assert len(given) == 6


def test_an_error_in_the_thread_is_not_lost() -> None:
    def fail() -> None:
        raise OSError("the disk")

    def work() -> None:
        with WriteBehind() as behind:
            behind(fail)
            for _ in range(10):
                behind(lambda: None)

    with pytest.raises(OSError, match="the disk"):
        work()


def test_an_error_in_the_block_drops_what_has_not_begun() -> None:
    gate = threading.Event()
    done: list[int] = []

    def work() -> None:
        with WriteBehind(most=3) as behind:
            behind(gate.wait)
            for i in range(3):
                behind(lambda i=i: done.append(i))  # type: ignore[misc]
            threading.Timer(0.1, gate.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == []
