"""What a user's own network, loss and optimizer must be like: else one line names them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mrdiff.diffusion.parameterization import NOISE, Parameterization
from mrdiff.diffusion.path import GaussianPath
from mrdiff.training.objective import Objective

_VISIBLE = 0.002  # half a grey level


class TrainingError(ValueError):
    """A part of the run does not do what training asks of it."""


def _name(part: object) -> str:
    kind = type(part)
    return f"{kind.__module__}.{kind.__qualname__}"


def check_call(part: Any, arguments: tuple[str, ...], *, key: str) -> None:
    """Raise TrainingError unless ``part`` can be called with that many positional arguments."""
    try:
        signature = inspect.signature(getattr(part, "forward", part))
    except (ValueError, TypeError):  # compiled code does not tell
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise TrainingError(
            f"{key}: {_name(part)} takes {signature}, but is called with "
            f"({', '.join(arguments)}): {error}"
        ) from None


def check_noise(path: GaussianPath, target: Parameterization) -> None:
    """Raise TrainingError where noise is to be predicted, and there is none to begin with."""
    if target == NOISE and (not path.noise or float(path.sigma(path.starts_at)) < _VISIBLE):
        raise TrainingError(
            f"model.parameterization: on {_name(path)} there is no noise to predict where "
            "restoration starts: take data, velocity or preconditioned"
        )


def check_precision(precision: str | None) -> None:
    """Raise TrainingError where the weights themselves would have 16 bits."""
    if str(precision).endswith("16-true") or str(precision).startswith("transformer-engine"):
        raise TrainingError(
            f"trainer.precision {precision} keeps weights in 16 bits, in which small steps and "
            "their average are lost: take bf16-mixed or 16-mixed"
        )


def check_loss(loss: Any, value: Any) -> None:
    """Raise TrainingError unless a loss returns one number, in training with a gradient."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise TrainingError(
            f"model.loss: {_name(loss)} returns {got}, not one number: let it return the mean"
        )
    if torch.is_grad_enabled() and not value.requires_grad:
        raise TrainingError(f"model.loss: {_name(loss)} returns a number without a gradient")


def not_finite(state: Mapping[str, Any]) -> str | None:
    """The first name in a ``state_dict`` whose tensor holds a value that is not finite."""
    for name, value in state.items():
        if isinstance(value, Tensor) and not bool(value.isfinite().all()):
            return name
    return None


def check_compared(loss: nn.Module, objective: Objective) -> None:
    """Raise an error for a loss of other arguments, or of images where none are compared."""
    check_call(loss, ("out", "target"), key="model.loss")
    if getattr(loss, "images", False) and not objective.images:
        kinds = f"{type(loss).__name__} compares images, {type(objective).__name__} makes none"
        raise ValueError(f"model.loss: {kinds}: take another loss, or Consistency")


def check_times(power: float, steps: int | None) -> None:
    """Raise ValueError for what :func:`.losses.stratified_times` cannot draw by."""
    if not power > 0:
        raise ValueError(f"time_power must be positive, got {power}")
    if steps is not None and steps < 1:
        raise ValueError(f"time_steps must be at least 1, got {steps}")
