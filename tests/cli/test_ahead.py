"""Threads beside the network: order, bounds, errors and endings."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrdiff.cli.sample.ahead import InTurn, WriteBehind, read_ahead


def until(condition: object, *, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.002)
    assert condition()  # type: ignore[operator]


@pytest.mark.parametrize("threads", [1, 3])
def test_items_come_in_order_and_what_waits_is_bounded(threads: int) -> None:
    made: list[int] = []

    def make(i: int) -> int:
        made.append(i)
        return i

    used = []
    for i in read_ahead(make, range(20), size=lambda _: 10, budget=30, threads=threads):
        used.append(i)
        until(lambda: len(made) == min(20, len(used) + 3))  # three wait
        time.sleep(0.01)
        assert len(made) <= len(used) + 3
    assert used == list(range(20))


def test_one_item_larger_than_the_budget_is_let_through() -> None:
    assert list(read_ahead(int, [50, 1, 50], size=lambda i: i, budget=2)) == [50, 1, 50]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 40)), st.integers(1, 60), st.integers(1, 4))
def test_any_sizes_come_in_order(sizes: list[int], budget: int, threads: int) -> None:
    read = read_ahead(int, sizes, size=lambda i: i, budget=budget, threads=threads)
    assert list(read) == sizes


def test_several_are_made_at_once_when_their_size_is_known() -> None:
    """The first alone: it may be the largest that there is room for."""
    meeting, begun = threading.Barrier(3), list[int]()

    def make(i: int) -> int:
        begun.append(i)
        if i == 0:
            time.sleep(0.02)
            assert begun == [0]
        elif i < 4:
            meeting.wait(5)
        return i

    read = read_ahead(make, range(6), size=lambda _: 1, budget=9, threads=3)
    assert list(read) == list(range(6))


def test_an_error_comes_after_what_was_before_it() -> None:
    def make(i: int) -> int:
        if i:
            raise OSError("the disk")
        return i

    for threads in (1, 2):
        read = read_ahead(make, range(3), size=lambda _: 1, budget=9, threads=threads)
        assert next(read) == 0
        with pytest.raises(OSError, match="the disk"):
            next(read)


def test_leaving_early_ends_the_threads() -> None:
    before = {*threading.enumerate()}  # some of which, of other tests, may end meanwhile
    for _ in read_ahead(int, range(10**9), size=lambda _: 1, budget=3, threads=2):
        break
    until(lambda: before.issuperset(threading.enumerate()))


def test_work_is_done_in_order_and_all_of_it() -> None:
    done: list[int] = []
    with WriteBehind(budget=2) as behind:
        for i in range(30):
            behind(lambda i=i: done.append(i), size=1)  # type: ignore[misc]
    assert done == list(range(30))


@pytest.mark.parametrize(("budget", "most"), [(5, 3), (40, 4)])
def test_giving_waits_while_too_much_is_pending(budget: int, most: int) -> None:
    gate = threading.Event()
    given: list[int] = []

    def give() -> None:
        with WriteBehind(budget=budget) as behind:
            for i in range(6):
                behind(gate.wait, size=10)
                given.append(i)

    thread = threading.Thread(target=give)
    thread.start()
    until(lambda: len(given) == most)  # one in work, the others waiting
    time.sleep(0.02)
    assert len(given) == most
    gate.set()
    thread.join(5)
    assert len(given) == 6


def test_several_are_written_at_once() -> None:
    meeting = threading.Barrier(3)
    with WriteBehind(budget=9, threads=3) as behind:
        for _ in range(6):
            behind(lambda: meeting.wait(5))


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(12)))
def test_things_are_said_in_turn(order: list[int]) -> None:
    said: list[int] = []
    in_turn = InTurn()
    with ThreadPoolExecutor(3) as pool:
        for number in order[:-2]:
            pool.submit(in_turn, number, lambda number=number: said.append(number))
    assert said == list(range(min(order[-2:])))  # those before the first that is missing
    in_turn.close()
    assert said == sorted(order[:-2])


def test_an_error_in_the_thread_is_not_lost() -> None:
    def fail() -> None:
        raise OSError("the disk")

    def work() -> None:
        with WriteBehind(budget=1) as behind:
            behind(fail)
            for _ in range(10):
                behind(lambda: None)

    with pytest.raises(OSError, match="the disk"):
        work()


def test_an_error_in_the_block_drops_what_has_not_begun() -> None:
    gate = threading.Event()
    done: list[int] = []

    def work() -> None:
        with WriteBehind(budget=9) as behind:
            behind(gate.wait)
            for i in range(3):
                behind(lambda i=i: done.append(i))  # type: ignore[misc]
            threading.Timer(0.1, gate.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == []
