"""What samples must be, whoever wrote the class that made them: else one line names the class.

Cheap enough for every sample: besides types and shapes, each image is read once, for its mean.
Values may leave [0, 1] a little, as with noise that was not clamped; an image in 0..255 or [-1, 1],
or with values that are not finite, is known by its mean.
"""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Iterator, Mapping
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from datamodules.errors import DataError
from mrdiff.photo import PhotoError
from mrdiff.system.memory import is_out_of_memory

_SLACK = 0.1  # of a mean beyond [0, 1]


def class_path(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def described(value: object) -> str:
    """``float32 [3, 8, 8]`` of a tensor, and what else something is."""
    if isinstance(value, Tensor):
        where = "" if value.device.type == "cpu" else f" on {value.device}"
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}{where}"
    shape = getattr(value, "shape", None)
    kind = "None" if value is None else type(value).__name__
    return kind if shape is None else f"{kind} {getattr(value, 'dtype', '')} {list(shape)}"


def unlike(value: Any, shape: tuple[int | None, ...], dtype: torch.dtype) -> str:
    """How ``value`` differs from an image of this shape, None for any side; else the empty text."""
    known = isinstance(value, Tensor) and value.dtype == dtype and value.device.type == "cpu"
    if not known or value.ndim != len(shape) or not value.numel():
        return described(value)
    if any(want not in (None, side) for side, want in zip(value.shape, shape, strict=True)):
        return described(value)
    mean = float(value.mean())
    if math.isfinite(mean) and -_SLACK <= mean <= 1 + _SLACK:
        return ""
    if not bool(torch.isfinite(value).all()):
        return "values that are not finite"
    return f"values from {float(value.min()):.3g} to {float(value.max()):.3g}"


def check_sample(sample: Any, *, where: str, channels: int, paired: bool, tasks: int) -> None:
    """Raise :class:`DataError`, which begins with ``where``, unless this is a ``Sample``."""
    if not isinstance(sample, Mapping):
        raise DataError(f"{where}: a sample is a dict of lq, gt and name, not {described(sample)}")
    missing = [key for key in ("lq", *(["gt"] * paired), "name") if key not in sample]
    if missing:
        raise DataError(f"{where}: the sample has no {' and no '.join(missing)}")
    if not isinstance(sample["name"], str):
        raise DataError(f"{where}: name must be a str, not {described(sample['name'])}")
    where = f"{where} ({sample['name']})"
    sides: tuple[int | None, int | None] = (None, None)
    for key, depth in (("lq", channels), ("gt", channels), ("mask", 1)):
        if key not in sample:
            continue
        if said := unlike(sample[key], (depth, *sides), torch.float32):
            size = ", ".join("HW"[i] if n is None else str(n) for i, n in enumerate(sides))
            network = "" if channels == 3 or key == "mask" else ", as of model.network"
            expected = f"float32 [{depth}, {size}] in [0, 1]{network}"
            raise DataError(f"{where}: {key} is {said}; it must be {expected}")
        sides = sample[key].shape[-2:]
    task = sample.get("degradation")
    if tasks and not (isinstance(task, Integral) and 0 <= task < tasks):
        known = f"the number of a task, 0 to {tasks - 1}"
        raise DataError(f"{where}: degradation is {task!r}; it must be {known}")


@contextlib.contextmanager
def blaming(where: str) -> Iterator[None]:
    """Turn what a user's class raises into a :class:`DataError` that says what and where.

    Ours name their file already, and that memory ran short is no fault of the data.
    """
    try:
        yield
    except PhotoError as error:
        raise DataError(str(error)) from error
    except Exception as error:
        if isinstance(error, DataError) or is_out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.filename is not None:
            raise DataError(f"{error.filename}: {error.strerror}") from error
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "site-packages" not in frame.filename]
        place = (own or frames)[-1]
        raise DataError(
            f"{where}: {type(error).__name__}: {error} ({place.filename}:{place.lineno})"
        ) from error
