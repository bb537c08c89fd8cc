"""Milliseconds that a dead-leaves picture takes on one core, and against another checkout.

    python -m benchmarks.leaves [--other DIR] [--count 24] [--size 288]

CPU time with one thread. ``--other`` draws the same pictures by the packages of DIR too, one here
and one there by turns, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.turns import answer, by_turns


def draw(count: int, size: int) -> None:
    """A worker: the milliseconds of one picture after the other."""
    from datamodules.leaves.picture import render  # of whichever checkout is tested

    render(1, 0, size)
    answer({})
    for index in range(count):
        start = time.process_time()
        render(0, index, size)
        answer({"ms": 1e3 * (time.process_time() - start)})


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--other", type=Path)
    parser.add_argument("--count", type=int, default=24, help="pictures")
    parser.add_argument("--size", type=int, default=288)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.worker:
        draw(options.count, options.size)
        return 0
    arguments = ["--count", str(options.count), "--size", str(options.size)]
    found = by_turns("benchmarks.leaves", arguments, options.other, options.count)
    medians = []
    print("| packages | median, ms a picture | mean |\n|---|---|---|")
    for name, answers in zip(("here", "other"), found, strict=False):
        spent = [each["ms"] for each in answers]
        medians.append(statistics.median(spent))
        print(f"| {name} | {medians[-1]:.1f} | {statistics.mean(spent):.1f} |")
    if options.other:
        print(f"\nhere / other: {medians[1] / medians[0]:.2f} of the pictures a second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
