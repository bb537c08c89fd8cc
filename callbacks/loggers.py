"""What the callbacks ask of Lightning's loggers and of TensorBoard beyond scalars."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger


def is_logging_step(trainer: Trainer) -> bool:
    """Whether the step that ends is one of every ``trainer.log_every_n_steps``."""
    # Lightning has no public question for it; its own monitors ask this.
    return trainer._logger_connector.should_update_logs


def find_writer(trainer: Trainer) -> Any | None:
    """The SummaryWriter of Lightning's TensorBoardLogger; None without one and on processes > 0."""
    if not trainer.is_global_zero:
        return None
    loggers = (each for each in trainer.loggers if isinstance(each, TensorBoardLogger))
    return next((each.experiment for each in loggers), None)


def chart_layout(charts: Mapping[str, Sequence[str]]) -> dict[str, dict[str, list[Any]]]:
    """The titles of charts and their scalar tags for ``SummaryWriter.add_custom_scalars``."""
    # TensorBoard takes tags as regular expressions.
    patterns = {title: [f"^{re.escape(tag)}$" for tag in tags] for title, tags in charts.items()}
    return {"mrdiff": {title: ["Multiline", tags] for title, tags in patterns.items()}}
