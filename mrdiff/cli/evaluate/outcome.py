"""From what is kept of the photos to the four files of an evaluation."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import mrdiff
from mrdiff.checkpoints.places import name_of_model
from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.evaluate.cases import Case
from mrdiff.cli.evaluate.measures import Measures
from mrdiff.cli.evaluate.page import png, write_page
from mrdiff.cli.evaluate.parts import Part, read_part
from mrdiff.cli.evaluate.plot import draw
from mrdiff.cli.evaluate.report import Results, write_up
from mrdiff.cli.evaluate.rows import rows_of, write_csv
from mrdiff.cli.evaluate.runs import Run
from mrdiff.system.files import replacing, write_text
from mrdiff.system.text import shown

__all__ = ["facts_of_run", "gather", "write_all"]

_TOLD = {"by folder": "named by the folder, if the model knows it", "auto": "judged"}


def facts_of_run(
    options: argparse.Namespace, settings: Mapping[str, Any], measures: Measures
) -> dict[str, str]:
    """In words, by what they are of."""
    processes = options.devices * options.num_nodes
    threads = torch.get_num_threads()
    device = [
        str(settings["device"]),
        str(settings["precision"]),
        f"{threads} CPU thread{'s' * (threads > 1)}",
    ]
    device += [f"{processes} processes"] if processes > 1 else []
    facts = {
        "checkpoint": f"{name_of_model(options.checkpoint)}, model {settings['model']}",
        "task": _TOLD.get(settings["task"], settings["task"]),
        "photos": "whole" if options.crop is None else f"centre crops of {options.crop} px",
        "protocol": f"{options.protocol}, of 8-bit pictures, as a PNG holds them",
        "seed": str(options.seed),
        "device": ", ".join(device),
        "versions": f"mrdiff {mrdiff.__version__}, torch {torch.__version__}",
        "date": datetime.date.today().isoformat(),
    }
    if measures.backbone is not None:
        facts["FID and KID"] = f"features of {measures.backbone}; of few photos they say little"
    if measures.missing:
        facts["not measured"] = measures.words
    return facts


def _part(case: Case, runs: Sequence[Run]) -> Part:
    part = read_part(case.kept)
    if part is None or any(run.key not in part.scores for run in runs):  # another command's doing
        raise CommandError(f"{case.kept}: has been changed: run the same command again")
    return part


def gather(
    options: argparse.Namespace,
    done: Sequence[Case],
    runs: Sequence[Run],
    measures: Measures,
    known: Sequence[str],
    facts: Mapping[str, str],
) -> Results:
    """The rows of all tasks, for a model that knows some tasks."""
    rows, looked_up = {}, {}
    for task in dict.fromkeys(case.task for case in done):
        cases = [case for case in done if case.task == task]
        judged = task in known and cases[0].told == "auto"
        parts = [_part(case, runs) for case in cases]
        rows[task] = rows_of(task, parts, runs, measures.names, judged=judged)
        looked_up[task] = task if task in known or cases[0].told == "auto" else cases[0].told
    whole = options.images is None and options.crop is None
    title = f"Evaluation of {Path(name_of_model(options.checkpoint)).name}"
    return Results(title, facts, rows, whole, looked_up, measures.backbone)


def write_all(
    output: Path,
    results: Results,
    done: Sequence[Case],
    runs: Sequence[Run],
) -> None:
    """Write ``evaluate.csv``, ``evaluate.md``, ``evaluate.png`` and ``report.html``."""
    count = len(results.rows)
    over = f"mean over {count} tasks" if count > 1 else "".join(results.rows)
    figure = png(draw(results.mean, results.titles, title=shown(f"{results.title}, {over}")))
    write_csv(output / "evaluate.csv", results.every, results.backbone)
    write_text(output / "evaluate.md", write_up(results))
    with replacing(output / "evaluate.png") as temporary:
        temporary.write_bytes(figure)
    by_task = {task: [case for case in done if case.task == task] for task in results.rows}
    write_page(output / "report.html", results, by_task, runs, figure=figure)
