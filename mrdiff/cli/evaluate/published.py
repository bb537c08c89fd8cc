"""Published numbers of a test set, from ``published.yaml`` beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from mrdiff.cli.common.scores import number
from mrdiff.cli.common.tables import markdown
from mrdiff.system.names import METRIC_TITLES, SET_METRICS, VALIDATION_METRICS

__all__ = ["Published", "published_of"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """The numbers of methods on the ``pairs`` of a ``set``, as one source has them.

    Each of the ``rows`` has ``method``, perhaps ``nfe``, and scores by our names of metrics.

    Raises:
        ValueError: a row has none of those names.
    """

    set: str
    task: str
    pairs: int
    source: str
    rows: list[Mapping[str, Any]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if unknown := [*row.keys() - {"method", "nfe", *VALIDATION_METRICS}]:
                raise ValueError(f"{self.set}, {row.get('method')}: unknown {unknown[0]}")

    @property
    def table(self) -> str:
        """In Markdown, with what it supposes and where it is from."""
        metrics = [name for name in VALIDATION_METRICS if any(name in row for row in self.rows)]
        titles = (METRIC_TITLES[n] + " on inception" * (n in SET_METRICS) for n in metrics)
        cells = [["method", "NFE", *titles]]
        for row in self.rows:
            scores = [number(name, row[name]) if name in row else "" for name in metrics]
            cells.append([row["method"], str(row.get("nfe", "")), *scores])
        head = f"Published, if these are the {self.pairs} pairs of {self.set} ({self.source}):"
        return f"{head}\n\n{markdown(cells)}"


@cache
def _all() -> tuple[Published, ...]:
    text = files("mrdiff.cli.evaluate").joinpath("published.yaml").read_text(encoding="utf-8")
    return tuple(Published(**entry) for entry in yaml.safe_load(text))


def published_of(task: str, pairs: int) -> list[Published]:
    """What is known of a test set of that task with so many pairs."""
    return [each for each in _all() if (each.task, each.pairs) == (task, pairs)]
