"""Every table and figure of README.md and docs/, made again from one state of the code.

    python -m benchmarks.all [NAME ...] --pairs FOLDER [--runs runs/results] [--fresh]
    python -m benchmarks.all --list | --fill

Runs the commands of benchmarks/results.yaml, those named or all, in its order, and writes what each
prints to benchmarks/results/NAME.md, with the command, the date, the commit and the machine. Then
the tables of the documents are filled in from these pages. What has been made with the same command
is left, so that a run that was stopped goes on; ``--fresh`` makes all again, training included.
``--list`` says what was made when; ``--fill`` fills in the documents alone. FOLDER has pairs of
others, ``TASK/{LQ,GT}``, for the ten tasks; without it what needs them is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import mrdiff
from benchmarks.documents import ROOT, fill, results_list
from benchmarks.machine import machine
from mrdiff.system.files import write_text

PLAN = ROOT / "benchmarks" / "results.yaml"
PAGES = ROOT / "benchmarks" / "results"
_KEPT = re.compile(r"--(?:keep|output) \$RUNS/(\w+)")  # what a command leaves behind


@dataclass(frozen=True)
class Block:
    """A page of results: what it asks, and the commands, a line each, that answer."""

    name: str
    group: str
    title: str
    asks: str
    command: str

    @property
    def page(self) -> Path:
        return PAGES / f"{self.name}.md"

    @property
    def lines(self) -> list[str]:
        return self.command.strip().splitlines()


def plan() -> dict[str, Block]:
    """The blocks by name, in the order in which they are made."""
    entries = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
    return {name: Block(name=name, **entry) for name, entry in entries.items()}


def state_of_code() -> str:
    """The commit, and whether files of the packages differ from it; the version without git."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    packages = ("mrdiff", "callbacks", "datamodules", "configs", "benchmarks/*.py")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *packages)
    commit = git("rev-parse", "--short", "HEAD") or f"version {mrdiff.__version__}"
    return commit + (" with changes" if changed else "")


def make(block: Block, variables: dict[str, str], log: Path) -> str | None:
    """What the commands print, one after the other, or None if one fails; its words are in log."""
    printed = []
    with log.open("w", encoding="utf-8") as errors:
        for line in block.lines:
            done = subprocess.run(
                ["bash", "-c", line],
                cwd=ROOT,
                env=os.environ | variables,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            if done.returncode:
                errors.write(done.stdout)
                return None
            if not line.startswith("mrdiff "):  # whose tables are made from their files
                printed.append(done.stdout.strip())
    return "\n\n".join(filter(None, printed))


def page(block: Block, text: str, facts: dict[str, Any] | None) -> str:
    """The page of results, or without facts one that is still to be made."""
    commands = "\n".join(f"    {line}" for line in block.lines)
    made = "Made on {date} at {commit} in {minutes:g} minutes, on {machine}.\n"
    made = made.format(**facts) if facts else "To be made."
    return f"# {block.title}\n\n{block.asks}\n\n{commands}\n\n{made}\n{text}".rstrip() + "\n"


def made_before(block: Block, runs: Path) -> dict[str, Any] | None:
    """The facts of a page that was made with the same command."""
    mark = runs / f"{block.name}.json"
    facts = json.loads(mark.read_text()) if mark.is_file() and block.page.is_file() else None
    return facts if facts and facts["command"] == block.command else None


def show(blocks: Sequence[Block], runs: Path) -> None:
    """A line a block: when it was made, and from which state of the code."""
    for block in blocks:
        facts = made_before(block, runs)
        print(f"{block.name:16}", "{date} {commit}".format(**facts) if facts else "to be made")


def run(block: Block, variables: dict[str, str], runs: Path) -> bool:
    """Make a page and remember it; False if that failed."""
    begin, log, commit = time.time(), runs / f"{block.name}.log", state_of_code()
    print(f"{block.name}: {block.asks}", flush=True)
    text = make(block, variables, log)
    if text is None:
        print(f"{block.name}: failed, see {log}", file=sys.stderr, flush=True)
        return False
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit,
        "machine": machine(),
    }
    facts |= {"minutes": round((time.time() - begin) / 60, 1), "command": block.command}
    write_text(block.page, page(block, text, facts))
    write_text(runs / f"{block.name}.json", json.dumps(facts))
    print(f"{block.name}: made in {facts['minutes']} minutes", flush=True)
    return True


def main(given: Sequence[str] | None = None) -> int:
    blocks = plan()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(blocks))
    parser.add_argument("--pairs", type=Path, help="folder with TASK/{LQ,GT}")
    parser.add_argument("--runs", type=Path, default=Path("runs", "results"))
    parser.add_argument("--fresh", action="store_true", help="make again what has been made")
    parser.add_argument("--list", action="store_true", help="say what was made when")
    parser.add_argument("--fill", action="store_true", help="fill in the documents alone")
    options = parser.parse_args(given)
    if unknown := {*options.names} - {*blocks}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(blocks)}")
    chosen = [block for block in blocks.values() if block.name in (options.names or blocks)]
    runs = options.runs.resolve()
    if options.list:
        show(chosen, runs)
        return 0
    failed = False
    if not options.fill:
        failed = make_all(chosen, options.pairs, runs, fresh=options.fresh)
    for block in blocks.values():
        if not block.page.is_file():
            write_text(block.page, page(block, "", None))
    fill({block.name: block.page for block in blocks.values()}, results_list(blocks.values()))
    return int(failed)


def make_all(blocks: Sequence[Block], pairs: Path | None, runs: Path, *, fresh: bool) -> bool:
    """Make what has not been made; whether any of it failed or was left out."""
    for block in blocks if fresh else ():
        (runs / f"{block.name}.json").unlink(missing_ok=True)
        for kept in _KEPT.findall(block.command):
            shutil.rmtree(runs / kept, ignore_errors=True)
    runs.mkdir(parents=True, exist_ok=True)
    variables = {"RUNS": str(runs), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if pairs is not None:
        variables["PAIRS"] = str(pairs.resolve())
    missing = []
    for block in blocks:
        if made_before(block, runs):
            print(f"{block.name}: made before")
        elif "$PAIRS" in block.command and pairs is None:
            print(f"{block.name}: left out, it needs --pairs", file=sys.stderr)
            missing.append(block)
        elif not run(block, variables, runs):
            missing.append(block)
    print(f"made {len(blocks) - len(missing)} of {len(blocks)}")
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
