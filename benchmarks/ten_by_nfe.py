"""The tables of what `mrdiff evaluate` has measured, from its evaluate.csv.

    python -m benchmarks.ten_by_nfe FOLDER [--judged FOLDER] [--nfe 5] [--figure docs/FILE.png]

FOLDER is the output of the command. By task, the first sampler at ``--nfe`` calls, beside it, from
a second evaluation with ``--task auto``, what comes out if the model judges the task. By the number
of calls: means over the tasks of every metric, and of the median seconds a photo. ``--figure``
takes the figure of the evaluation to where it is shown.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

Line = dict[str, str]
PLAIN = ("task", "sampler", "nfe", "photos", "judged_right", "seconds")


def read(folder: Path) -> list[Line]:
    with (folder / "evaluate.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digits(metric: str) -> int:
    """Decimals that are worth showing."""
    return 2 if metric.startswith(("psnr", "fid", "niqe", "piqe", "seconds")) else 3


def pair(line: Line) -> str:
    """PSNR in dB, and LPIPS where it was measured."""
    return " / ".join(f"{float(line[m]):.{digits(m)}f}" for m in ("psnr", "lpips") if line.get(m))


def by_task(lines: Sequence[Line], nfe: str) -> Iterator[str]:
    """A row a task: the input and what became of it, PSNR / LPIPS."""
    yield "| task | input PSNR / LPIPS | restored PSNR / LPIPS | NFE | seconds a photo |"
    yield "|---" * 5 + "|"
    for before, after in of_tasks(lines, nfe):
        seconds = f"{float(after['seconds']):.1f}"
        yield f"| {after['task']} | {pair(before)} | {pair(after)} | {nfe} | {seconds} |"


def of_tasks(lines: Sequence[Line], nfe: str) -> Iterator[tuple[Line, Line]]:
    """Of each task the line of the input and that of the first sampler at so many calls."""
    sampler = next(line["sampler"] for line in lines if line["nfe"] != "0")
    before = {line["task"]: line for line in lines if line["nfe"] == "0"}
    for line in lines:
        if (line["sampler"], line["nfe"]) == (sampler, nfe):
            yield before[line["task"]], line


def as_judged(lines: Sequence[Line], judged: Sequence[Line], nfe: str) -> Iterator[str]:
    """A row a task: how many photos the model judges right, and what that costs."""
    yield "| task | photos | judged right | task given | task judged |\n|---|---|---|---|---|"
    guessed = {line["task"]: line for _, line in of_tasks(judged, nfe)}
    for _, line in of_tasks(lines, nfe):
        of = guessed[line["task"]]
        counts = f"{line['photos']} | {of['judged_right']}"
        yield f"| {line['task']} | {counts} | {pair(line)} | {pair(of)} |"


def mean_of(lines: Sequence[Line], metric: str, digits: int) -> str:
    """Over the tasks; empty where one of them has no value."""
    values = [line[metric] for line in lines]
    return f"{statistics.fmean(map(float, values)):.{digits}f}" if all(values) else ""


def by_calls(lines: Sequence[Line]) -> Iterator[str]:
    """A table a metric, a row a sampler."""
    before, runs = ([line for line in lines if (line["nfe"] == "0") == of] for of in (True, False))
    nfes = sorted({int(line["nfe"]) for line in runs})
    for metric in [name for name in lines[0] if name not in PLAIN] + ["seconds"]:
        given = "" if metric == "seconds" else f", input {mean_of(before, metric, digits(metric))}"
        yield f"\n| {metric}{given} | {' | '.join(map(str, nfes))} |\n{'|---' * (len(nfes) + 1)}|"
        for sampler in dict.fromkeys(line["sampler"] for line in runs):
            cells = []
            for nfe in map(str, nfes):
                found = [line for line in runs if (line["sampler"], line["nfe"]) == (sampler, nfe)]
                cells.append(mean_of(found, metric, digits(metric)))
            yield f"| {sampler} | {' | '.join(cells)} |"


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--judged", type=Path, help="an evaluation with --task auto")
    parser.add_argument("--nfe", default="5", help="of the table by task")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args(given)
    lines = read(options.folder)
    print("## By task\n\nPSNR in dB / LPIPS, means over the photos.\n")
    print("\n".join(by_task(lines, options.nfe)))
    if options.judged:
        print("\n## As judged\n\nPSNR / LPIPS, the task given and judged by the model.\n")
        print("\n".join(as_judged(lines, read(options.judged), options.nfe)))
    print("\n## By number of calls\n\nMeans over the tasks.")
    print("\n".join(by_calls(lines)))
    if options.figure:
        shutil.copy(options.folder / "evaluate.png", options.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
