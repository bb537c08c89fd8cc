"""What the callbacks ask of Lightning's loggers beyond scalars: pictures, and charts."""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from callbacks.pictures import Pixels
from mrdiff.system.files import replacing


def is_logging_step(trainer: Trainer) -> bool:
    """Whether the step that ends is one of every ``trainer.log_every_n_steps``."""
    # Lightning has no public question for it; its own monitors ask this.
    return trainer._logger_connector.should_update_logs


def can_draw(trainer: Trainer) -> bool:
    """Whether there is a logger to give pictures to; only the first process has one."""
    known: Any = trainer  # typed as less than it is
    return trainer.is_global_zero and bool(trainer.loggers) and not known.fast_dev_run


def draw(trainer: Trainer, tag: str, picture: Pixels | Figure, step: int) -> None:
    """Give a picture, ``[H, W, 3]`` or a figure, to every logger in that one's own way.

    A CSVLogger has it as ``images/TAG/STEP.png`` beside its table.
    """
    pixels = _pixels(picture) if isinstance(picture, Figure) else picture
    for logger in trainer.loggers if can_draw(trainer) else ():
        match logger:
            case TensorBoardLogger():
                logger.experiment.add_image(tag, pixels, step, dataformats="HWC")
            case WandbLogger():
                logger.log_image(tag, [pixels], step)
            case MLFlowLogger():
                logger.experiment.log_image(logger.run_id, pixels, key=tag, step=step)
            case CSVLogger():
                with replacing(Path(logger.log_dir, "images", tag, f"{step}.png")) as file:
                    Image.fromarray(pixels).save(file, "PNG")
            case _:
                _tell(type(logger).__name__)


@functools.cache  # once
def _tell(logger: str) -> None:
    rank_zero_info(f"note: {logger} gets numbers alone: how it takes pictures is not known")


def _pixels(figure: Figure) -> Pixels:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


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
