"""What a network may be told besides the degraded image: the task, kept pixels, features.

A network says what it takes by attributes: ``tasks``, the names of the degradations it knows, with
a method ``classify(mu)`` -> logits; ``mask``, true if it sees a mask; ``features``, the names of
vectors that another network made of the photo, with their widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "Context",
    "FeatureError",
    "TaskError",
    "check_task",
    "check_tasks",
    "classifier_parameters",
    "classify",
    "judge",
    "known_features",
    "known_tasks",
    "make_context",
    "one_hot",
    "pick_features",
    "takes_mask",
    "training_context",
]

Context = dict[str, Tensor]


class TaskError(ValueError):
    """A task that a model does not know: one line that names it and those it knows."""


class FeatureError(ValueError):
    """Features that do not fit a model: one line."""


def known_tasks(network: nn.Module) -> tuple[str, ...]:
    """The names of the degradations that a network tells apart; empty for most."""
    tasks: Sequence[str] = getattr(network, "tasks", ())
    return tuple(tasks)


def takes_mask(network: nn.Module) -> bool:
    """Whether a network sees which pixels were kept."""
    return getattr(network, "mask", False) is True


def known_features(network: nn.Module) -> dict[str, int]:
    """The features that a network takes, with their widths; empty for most."""
    features = getattr(network, "features", None)
    # Other networks may well have layers of that name.
    return dict(features) if isinstance(features, Mapping) else {}


def pick_features(network: nn.Module, given: Mapping[str, Tensor]) -> Context:
    """Those of the features ``[B, D]`` that a network takes.

    Raises:
        FeatureError: one is missing or has another width.
    """
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
    """Certainty: float32 ``[B, K]`` of int64 indices ``[B]``.

    Raises:
        TaskError: an index is not one of the K tasks.
    """
    if not bool(((degradation >= 0) & (degradation < tasks)).all()):
        raise TaskError(f"the data names a degradation that is none of the network's {tasks}")
    return functional.one_hot(degradation.long(), tasks).float()


def check_task(task: str, tasks: Sequence[str]) -> None:
    """Refuse a task that a model does not know.

    Raises:
        TaskError: ``task`` is neither ``"auto"`` nor one of ``tasks``.
    """
    if task != "auto" and task not in tasks:
        known = f"knows {', '.join(tasks)}" if tasks else "was trained for one task alone"
        raise TaskError(f"no task {task}: this model {known}")


def check_tasks(network: nn.Module, given: Sequence[str]) -> None:
    """Refuse data whose tasks are not the network's.

    Data of no named task goes with any network, and a network of no task learns from all data.

    Raises:
        TaskError: both have tasks, and they differ in their names or their order.
    """
    tasks = known_tasks(network)
    if tasks and given and tuple(given) != tasks:
        raise TaskError(
            f"model.network.tasks is {', '.join(tasks)}, but the data has {', '.join(given)}: "
            "give the same names in the same order"
        )


def classifier_parameters(network: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters behind ``classify``: those of its module ``classifier``, if it is one."""
    classifier = getattr(network, "classifier", None)
    if isinstance(classifier, nn.Module):
        yield from classifier.parameters()


def _spread(length: int, side: int, most: int) -> list[int]:
    """Where at most ``most`` windows of ``side`` begin, evenly spread over ``length``."""
    count = min(most, -(-length // side))
    last = max(length - side, 0)
    return [round(i * last / max(count - 1, 1)) for i in range(count)]


def judge(network: nn.Module, mu: Tensor) -> Tensor:
    """Probabilities ``[B, K]`` of the tasks of degraded images ``[B, C, H, W]``, each by itself.

    Up to 64 windows of 96 pixels are judged and their probabilities averaged. A classifier learns
    from patches of about that size: on a photo as a whole it is wrong more often, and memory
    would grow with the image.
    """
    side = 96
    rows, columns = (_spread(length, side, 8) for length in mu.shape[-2:])
    windows = [mu[..., y : y + side, x : x + side] for y in rows for x in columns]
    judged = [classify(network, window).softmax(dim=1) for window in windows]
    return torch.stack(judged).mean(dim=0)


def classify(network: nn.Module, mu: Tensor) -> Tensor:
    """Logits ``[B, K]``, float32, of the degraded images ``[B, C, H, W]`` for K known tasks."""
    logits: Callable[[Tensor], Tensor] = network.classify  # type: ignore[assignment]
    return logits(mu).float()


def make_context(
    network: nn.Module,
    mu: Tensor,
    *,
    task: str | None = None,
    mask: Tensor | None = None,
    features: Mapping[str, Tensor] | None = None,
) -> Context | None:
    """What ``network`` takes, for the degraded images ``mu`` ``[B, C, H, W]`` in [0, 1].

    Args:
        network: tells what it takes.
        mu: degraded images, on the network's device.
        task: name of the degradation; None lets the network's classifier judge, each image once.
        mask: ``[B, 1, H, W]``, 1 where the images were kept; ignored by a network without it.
        features: ``[B, D]`` each; those that the network does not take are ignored.

    Returns:
        None for a network that takes nothing.

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
    blind: float,
    generator: torch.Generator,
) -> Context | None:
    """What the network is told in a training batch.

    Args:
        network: tells what it takes.
        batch: perhaps with ``degradation`` ``[B]``, without which all are blind, and ``mask``.
        logits: the classifier's for the batch, if the network knows several tasks.
        blind: share of the images for which the network is told the classifier's probabilities
            rather than the truth, so that it is used to both.
        generator: picks those images.

    Raises:
        TaskError: a degradation is none of the network's.
    """
    context: Context = {}
    if logits is not None and "degradation" not in batch:
        context["task"] = logits.detach().softmax(1)
    elif logits is not None:
        truth = one_hot(batch["degradation"], logits.shape[1])
        picked = torch.rand(len(truth), 1, generator=generator, device=generator.device) < blind
        context["task"] = torch.where(picked.to(truth.device), logits.detach().softmax(1), truth)
    if "mask" in batch and takes_mask(network):
        context["mask"] = batch["mask"]
    return context or None
