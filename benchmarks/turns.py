"""Two checkouts measured by turns, so that a busy machine disturbs both alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]


def by_packages_of(
    folder: Path, module: str, arguments: Sequence[str]
) -> tuple[list[str], dict[str, Any]]:
    """The command, and the options of ``subprocess``, of this checkout's benchmark in another.

    There may be benchmarks in the other one, too, older than this one needs: those of here count.
    """
    ours = f"import benchmarks; benchmarks.__path__[:] = [{str(HERE / 'benchmarks')!r}]"
    program = f"{ours}; from {module} import main; raise SystemExit(main())"
    path = os.pathsep.join([str(folder.resolve()), str(HERE)])
    place = {"cwd": folder, "env": {**os.environ, "PYTHONPATH": path}}
    return [sys.executable, "-c", program, *arguments], place


def answer(numbers: dict[str, float]) -> None:
    """In a worker: tell what a turn took, and wait for the next one."""
    print(json.dumps(numbers), flush=True)
    sys.stdin.readline()


def _read(worker: subprocess.Popen[str]) -> dict[str, float]:
    for line in worker.stdout or ():
        if line.startswith("{"):
            numbers: dict[str, float] = json.loads(line)
            return numbers
    raise RuntimeError("a worker ended early")


def by_turns(
    module: str, arguments: Sequence[str], other: Path | None, turns: int
) -> list[list[dict[str, float]]]:
    """What a benchmark answers in each turn, here and for ``other``, if there is one.

    Its ``main`` gets ``--worker`` and the arguments, and calls :func:`answer` once to say that it
    is warm and once a turn.
    """
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = []
    for folder in (HERE, *filter(None, [other])):
        command, place = by_packages_of(folder, module, ["--worker", *arguments])
        workers.append(subprocess.Popen(command, **place, **pipes))
    for worker in workers:
        _read(worker)
    found: list[list[dict[str, float]]] = [[] for _ in workers]
    for _ in range(turns):
        for worker, answers in zip(workers, found, strict=True):
            print(file=worker.stdin, flush=True)
            answers.append(_read(worker))
    for worker in workers:
        worker.communicate("\n")
    return found
