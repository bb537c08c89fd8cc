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
    script: str, arguments: Sequence[str], other: Path | None, turns: int
) -> list[list[dict[str, float]]]:
    """What a script answers in each turn, for this checkout and for ``other``, if there is one.

    The script, a file, gets ``--worker`` and the arguments, and calls :func:`answer` once to say
    that it is warm and once a turn.
    """
    command = [sys.executable, str(Path(script).resolve()), "--worker", *arguments]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = []
    for folder in (HERE, *filter(None, [other])):
        path = os.pathsep.join([str(folder), str(HERE)])  # the benchmarks are those of here
        environment = {**os.environ, "PYTHONPATH": path}
        workers.append(subprocess.Popen(command, cwd=folder, env=environment, **pipes))
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
