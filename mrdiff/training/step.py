"""A training step from the batch to its losses: one pure function, which torch can compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.networks.conditions import classify, training_context
from mrdiff.networks.protocol import known_tasks
from mrdiff.solvers.noise import keyed_generator
from mrdiff.system.devices import uploaded
from mrdiff.training.losses import stratified_times
from mrdiff.training.objective import Objective


class Batch(TypedDict, total=False):
    """What a dataloader yields: images ``[B, C, H, W]`` in [0, 1]; gt is absent at predict."""

    lq: Tensor
    gt: Tensor
    name: list[str]
    degradation: Tensor  # ``[B]`` int64: indices of the network's tasks
    mask: Tensor  # ``[B, 1, H, W]``: 0 in holes, else 1
    mu: Tensor  # where the path starts, if not at lq: added to the batch by the module


class Parts(NamedTuple):
    """What a step is made of."""

    denoiser: Denoiser
    loss: nn.Module
    objective: Objective


class Drawn(NamedTuple):
    """What chance says of a step."""

    t: Tensor  # ``[B]`` in (0, 1], or what the objective makes of them
    eps: Tensor  # ``[B, C, H, W]``
    judged: Tensor | None  # ``[B, 1]``: of which images the task is judged, although it is known


def draw(
    batch: Batch,
    *key: int | str,
    blind: float,
    power: float,
    steps: int | None,
    times: Callable[[Tensor], Tensor],
) -> Drawn:
    """A function of the key and of the device's type alone.

    Args:
        batch: of the network that is to be asked.
        key: of the batch; whatever else is drawn has no say.
        blind: probability that an image is judged.
        power, steps: see :func:`.losses.stratified_times`.
        times: those that are asked for, of those drawn; on the CPU.
    """
    gt = batch["gt"]
    host = keyed_generator(torch.device("cpu"), *key)
    t = times(stratified_times(len(gt), host, power=power, steps=steps))
    generator = host if gt.is_cpu else keyed_generator(gt.device, *key)
    eps = torch.randn(gt.shape, generator=generator, device=gt.device, dtype=gt.dtype)
    judged = None
    if "degradation" in batch:
        judged = uploaded(torch.rand(len(gt), 1, generator=host) < blind, gt.device)
    return Drawn(uploaded(t, gt.device), eps, judged)


def denoising_loss(parts: Parts, batch: Batch, drawn: Drawn, logits: Tensor | None) -> Tensor:
    """The loss of denoising, given the logits of the tasks if the network knows several."""
    context = training_context(parts.denoiser.network, batch, logits, judged=drawn.judged)
    mu = batch.get("mu", batch["lq"])
    compared = parts.objective(parts.denoiser, batch["gt"], mu, drawn.t, drawn.eps, context)
    loss: Tensor = parts.loss(*compared)
    return loss


def training_losses(parts: Parts, batch: Batch, drawn: Drawn) -> tuple[Tensor, Tensor | None]:
    """The losses of denoising and, where the batch names its tasks, of classifying them."""
    network = parts.denoiser.network
    logits = classify(network, batch["lq"]) if known_tasks(network) else None
    loss = denoising_loss(parts, batch, drawn, logits)
    if logits is None or "degradation" not in batch:
        return loss, None
    return loss, cross_entropy(logits, batch["degradation"])
