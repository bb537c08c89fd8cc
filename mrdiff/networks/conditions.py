"""The context of a network: the task, the mask of known pixels, features of the photo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mrdiff.networks.protocol import Context, known_features, known_tasks, takes_mask

__all__ = ["FeatureError", "TaskError", "check_degradation", "check_task", "check_tasks"]
__all__ += ["classify", "judge", "make_context", "one_hot", "pick_features"]
__all__ += ["training_context", "with_task"]


class TaskError(ValueError):
    """A task that a model does not know: one line that names it and those it knows."""


class FeatureError(ValueError):
    """Features that do not fit a model: one line."""


def pick_features(network: nn.Module, given: Mapping[str, Tensor]) -> Context:
    """The features ``[B, D]`` that a network takes; FeatureError if one is missing or wrong."""
    taken = known_features(network)
    if missing := [name for name in taken if name not in given]:
        what = f"this model needs features of each photo, {' and '.join(missing)}"
        raise FeatureError(f"{what}: sample.py gives them by --daclip or --context")
    for name, width in taken.items():
        if given[name].ndim != 2 or given[name].shape[1] != width:
            shape = list(given[name].shape)
            raise FeatureError(f"the feature {name} is {shape}, but this model takes [B, {width}]")
    return {name: given[name] for name in taken}


def one_hot(degradation: Tensor, tasks: int) -> Tensor:
    """Float32 ``[B, K]`` of int64 indices ``[B]``; zeros for what is none of the K tasks."""
    return (degradation[:, None] == torch.arange(tasks, device=degradation.device)).float()


def check_degradation(degradation: Tensor, network: nn.Module) -> None:
    """Raise TaskError if an index ``[B]`` is none of the network's tasks.

    On the CPU alone: a GPU would be waited for, and ends the run itself when it scores such a task.
    """
    tasks = len(known_tasks(network))
    if not tasks or not degradation.is_cpu:
        return
    if not all(0 <= index < tasks for index in degradation.tolist()):
        raise TaskError(f"the data names a degradation that is none of the network's {tasks}")


def check_task(task: str, tasks: Sequence[str]) -> None:
    """Raise TaskError unless ``task`` is ``"auto"`` or one of ``tasks``."""
    if task != "auto" and task not in tasks:
        known = f"knows {', '.join(tasks)}" if tasks else "was trained for one task alone"
        raise TaskError(f"no task {task}: this model {known}")


def check_tasks(network: nn.Module, given: Sequence[str]) -> None:
    """Raise TaskError if data and network both have tasks and they differ in names or order."""
    tasks = known_tasks(network)
    if tasks and given and tuple(given) != tasks:
        raise TaskError(
            f"model.network.tasks is {', '.join(tasks)}, but the data has {', '.join(given)}: "
            "give the same names in the same order"
        )


def _starts(length: int, side: int, most: int) -> list[int]:
    """Where at most ``most`` windows of ``side`` begin, evenly spread over ``length``."""
    count = min(most, -(-length // side))
    last = max(length - side, 0)
    return [round(i * last / max(count - 1, 1)) for i in range(count)]


def judge(network: nn.Module, mu: Tensor) -> Tensor:
    """Probabilities ``[B, K]`` of the tasks of degraded images ``[B, C, H, W]``, each by itself.

    Those of up to 64 windows of 96 pixels are averaged. A classifier learns from patches of about
    that size: on a photo as a whole it is wrong more often, and memory would grow with the image.
    """
    side = 96
    rows, columns = (_starts(length, side, 8) for length in mu.shape[-2:])
    windows = [mu[..., y : y + side, x : x + side] for y in rows for x in columns]
    judged = [classify(network, window).softmax(dim=1) for window in windows]
    return torch.stack(judged).mean(dim=0)


def classify(network: nn.Module, mu: Tensor) -> Tensor:
    """Logits ``[B, K]``, float32, of degraded images ``[B, C, H, W]`` for K known tasks."""
    logits: Callable[[Tensor], Tensor] = network.classify  # type: ignore[assignment]
    return logits(mu).float()


def with_task(network: nn.Module, mu: Tensor, context: Context | None) -> Context:
    """The context with the classifier's ``task`` if the network knows tasks and none is given."""
    context = context or {}
    if "task" in context or not known_tasks(network):
        return context
    return {**context, "task": classify(network, mu).softmax(dim=1)}


def make_context(
    network: nn.Module,
    mu: Tensor,
    *,
    task: str | None = None,
    mask: Tensor | None = None,
    features: Mapping[str, Tensor] | None = None,
) -> Context | None:
    """What ``network`` takes of task, mask and features; None if nothing.

    Args:
        network: on the device of ``mu``.
        mu: degraded images ``[B, C, H, W]`` in [0, 1].
        task: name of the degradation; None lets the network's classifier judge, each image once.
        mask: ``[B, 1, H, W]``, 1 where pixels are known.
        features: ``[B, D]`` each.

    Raises:
        TaskError: the network does not know the task, or knows no tasks.
        FeatureError: a feature that it takes is missing or has another width.
    """
    tasks = known_tasks(network)
    context = pick_features(network, features or {})
    if task is not None:
        check_task(task, tasks)
        index = torch.full((len(mu),), tasks.index(task), device=mu.device)
        context["task"] = one_hot(index, len(tasks))
    elif tasks:
        context["task"] = judge(network, mu)
    if mask is not None and takes_mask(network):
        context["mask"] = mask
    return context or None


def training_context(
    network: nn.Module,
    batch: Mapping[str, Any],
    logits: Tensor | None,
    *,
    judged: Tensor | None,
) -> Context | None:
    """The context of a training batch.

    Args:
        network: takes it.
        batch: with ``degradation`` ``[B]`` unless all are judged; perhaps with ``mask``.
        logits: the classifier's for the batch, if the network knows several tasks.
        judged: ``[B, 1]``, which images get the classifier's probabilities instead of the truth, so
            that the network is used to both; None for all.
    """
    context: Context = {}
    if logits is not None:
        context["task"] = logits.detach().softmax(1)
        if judged is not None:
            truth = one_hot(batch["degradation"], logits.shape[1])
            context["task"] = torch.where(judged, context["task"], truth)
    if "mask" in batch and takes_mask(network):
        context["mask"] = batch["mask"]
    return context or None
