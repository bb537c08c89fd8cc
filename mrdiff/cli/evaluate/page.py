"""The page of an evaluation: its table, figures, and a few photos of each task."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mrdiff.cli.common.pages import embedded, template
from mrdiff.cli.common.scores import number, with_unit
from mrdiff.cli.evaluate.cases import Case
from mrdiff.cli.evaluate.parts import INPUT, TRUTH, read_part
from mrdiff.cli.evaluate.plot import draw
from mrdiff.cli.evaluate.report import Results, best_run, cells
from mrdiff.cli.evaluate.rows import Row
from mrdiff.cli.evaluate.runs import Run
from mrdiff.system.files import write_text
from mrdiff.system.names import METRIC_TITLES, SET_METRICS
from mrdiff.system.text import shown

__all__ = ["png", "write_page"]


def png(figure: Figure) -> bytes:
    """A figure as the content of a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _pictures(cases: Sequence[Case], key: str, metric: str) -> list[dict[str, str]]:
    """The photos that there are small pictures of, at the best run of all."""
    found = []
    for case in cases:
        if case.pictures is None or (part := read_part(case.kept)) is None:
            continue
        names = {"input": INPUT, "restored": key, "truth": TRUTH}
        places = {name: case.pictures / f"{of}.jpg" for name, of in names.items()}
        if not all(place.is_file() for place in places.values()):
            continue
        score = ""
        if metric not in SET_METRICS:
            before, after = part.scores[INPUT][metric], part.scores[key][metric]
            score = f"{METRIC_TITLES[metric]} {number(metric, before)} → {with_unit(metric, after)}"
        addresses = {name: embedded(place.read_bytes()) for name, place in places.items()}
        found.append({"name": case.name, "score": score, **addresses})
    return found


def _section(
    task: str, rows: Sequence[Row], cases: Sequence[Case], runs: Sequence[Run], *, metric: str
) -> dict[str, Any]:
    best = best_run(rows, metric)
    key = next(run.key for run in runs if (run.label, run.nfe) == (best.sampler, best.nfe))
    return {
        "task": shown(task),
        "photos": rows[0].photos,
        "right": rows[0].right,
        "best": f"{best.sampler} at NFE {best.nfe}",
        "pictures": _pictures(cases, key, metric),
    }


def write_page(
    path: Path,
    results: Results,
    cases: Mapping[str, Sequence[Case]],
    runs: Sequence[Run],
    *,
    figure: bytes,
) -> None:
    """Write the page, whole or not at all; ``figure`` is the PNG that it shows first."""
    metrics, several = list(results.titles), len(results.rows) > 1
    metric = next((name for name in metrics if name not in SET_METRICS), metrics[0])
    sections = []
    for task, rows in results.rows.items():
        section = _section(task, rows, cases[task], runs, metric=metric)
        own = (
            embedded(png(draw(rows, results.titles, title=shown(task))), "png") if several else None
        )
        sections.append({**section, "figure": own})
    every = [*results.mean, *results.every] if several else results.every
    page = template("mrdiff.cli.evaluate", "evaluation.html.j2").render(
        title=results.title,
        facts=results.facts,
        figure=embedded(figure, "png"),
        head=["task", *cells(results.mean, results.titles)[0]],
        rows=[(shown(row.task), row) for row in every],
        metrics=metrics,
        metric=METRIC_TITLES[metric],
        number=number,
        places={section["task"]: f"task{i}" for i, section in enumerate(sections)},
        sections=sections,
    )
    write_text(path, page)
