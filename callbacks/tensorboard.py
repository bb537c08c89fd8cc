"""What the callbacks ask of TensorBoard beyond scalars."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger


def find_writer(trainer: Trainer) -> Any | None:
    """The SummaryWriter of Lightning's TensorBoardLogger, on the first process only.

    Returns:
        None on other processes, and where no such logger is in use.
    """
    if not trainer.is_global_zero:
        return None
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            return logger.experiment
    return None


def chart_layout(charts: Mapping[str, Sequence[str]]) -> dict[str, dict[str, list[Any]]]:
    """A layout for `SummaryWriter.add_custom_scalars`: several curves on one chart.

    Args:
        charts: title of each chart, and the scalar tags on it.

    Returns:
        One category, "mrdiff". TensorBoard takes tags as regular expressions, so they are escaped.
    """
    return {
        "mrdiff": {
            title: ["Multiline", [f"^{re.escape(tag)}$" for tag in tags]]
            for title, tags in charts.items()
        }
    }
