"""What survives: training that is killed and resumed, photos and clips with flipped bytes.

    python -m benchmarks.faults [--kills 20] [--flips 4000] [--minutes 10]

A tiny training is killed again and again, at random moments and in the middle of writing a
checkpoint, every other time with TMPDIR on another file system, and resumed with
``--ckpt_path last``. Then the same training runs once undisturbed: the weights after every step of
a resumed run must have the same bits. The damaged files go through what ``sample.py`` does with a
file: restored, or refused with one line; all else is an uncaught exception, a crash or a hang.
Ends with status 1 if anything was lost or uncaught.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.flips import flip_and_restore
from benchmarks.kills import Report, kill_and_compare


def print_kills(report: Report) -> None:
    print("| a training killed with SIGKILL and resumed | |")
    print("|---|---|")
    print(f"| kills | {report.kills} |")
    print(f"| in the middle of writing a checkpoint | {report.within_save} |")
    print(f"| with TMPDIR on another file system | {report.other_file_system} |")
    print(f"| resumed to the same bits ({report.steps} steps) | {report.equal} |")
    print(
        f"| killed after the first interval, of these without a checkpoint | "
        f"{report.due}, {report.missing} |"
    )
    print(f"| temporary files left at the end | {report.left} |\n")


def print_flips(counts: dict[str, Counter[str]]) -> bool:
    """Print the table; whether every file was restored or refused."""
    print("| damaged | files | restored | refused in one line | uncaught | crashed or hung |")
    print("|---|---|---|---|---|---|")
    worse = []
    for kind, outcomes in counts.items():
        stuck = outcomes["crashed"] + outcomes["hung"]
        fine = outcomes["restored"] + outcomes["refused"]
        uncaught = outcomes.total() - fine - stuck
        row = (outcomes.total(), outcomes["restored"], outcomes["refused"], uncaught, stuck)
        print(f"| {kind} | {' | '.join(map(str, row))} |")
        worse += [what for what in outcomes if what not in ("restored", "refused")]
    if worse:
        print("", *worse, sep="\n")
    return not worse


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--flips", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=10, help="of damaged files at most")
    options = parser.parse_args(given)
    begin, good = time.monotonic(), True
    with tempfile.TemporaryDirectory() as folder:
        if options.kills:
            report = kill_and_compare(Path(folder) / "kills", kills=options.kills)
            print_kills(report)
            good = report.good
        if options.flips:
            deadline = time.monotonic() + 60 * options.minutes
            flips = Path(folder) / "flips"
            good &= print_flips(flip_and_restore(flips, flips=options.flips, deadline=deadline))
    print(f"\n{time.monotonic() - begin:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
