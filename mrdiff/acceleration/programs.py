"""What a model is as programs that run without mrdiff, still to be exported.

``restorer`` is a whole run of a sampler, ``denoiser`` one call, and ``classifier`` judges the task
for a model of several. All take any number of images of any size, from 32 pixels on.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mrdiff.acceleration.backends import Positional
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.wrappers import BoundDenoiser, DenoiserLike
from mrdiff.networks.conditions import classify
from mrdiff.networks.protocol import (
    Context,
    image_channels,
    known_features,
    known_tasks,
    size_multiple,
    takes_mask,
)
from mrdiff.solvers.run import Sampler

__all__ = ["Part", "axes", "least_side", "parts"]


class Part(NamedTuple):
    """One program: its module, an example of each input by its name, and names of its outputs."""

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


class _Denoise(nn.Module):
    """One call of a denoiser: x0 and eps of a state."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self, x: Tensor, mu: Tensor, t: Tensor, context: Context | None
    ) -> tuple[Tensor, Tensor]:
        x0, eps = self.denoiser(x, t, mu, context)
        return x0, eps


class _Restore(nn.Module):
    """A run of a sampler, whose steps ``drawn`` take their noise from ``noise`` ``[N, B, ...]``."""

    def __init__(self, denoiser: Denoiser, sampler: Sampler, drawn: Sequence[int]) -> None:
        super().__init__()
        self.denoiser, self.sampler, self.drawn = denoiser, sampler, drawn

    def forward(self, lq: Tensor, given: Context | None) -> Tensor:
        context = dict(given or {})
        noise = context.pop("noise", None)

        def draw(step: int, _: Sequence[int]) -> Tensor:
            assert noise is not None
            return noise[self.drawn.index(step)]

        model: DenoiserLike = BoundDenoiser(self.denoiser, context) if context else self.denoiser
        return self.sampler(model, lq, noise=draw).float().clamp(0.0, 1.0)


class _Classify(nn.Module):
    """The network's logits of the tasks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, lq: Tensor, _: Context | None) -> Tensor:
        return classify(self.network, lq)


def _context(network: nn.Module, height: int, width: int) -> Context:
    """An example of all that a network takes besides, for two images."""
    context = {name: torch.zeros(2, size) for name, size in known_features(network).items()}
    if tasks := known_tasks(network):
        context["task"] = torch.full((2, len(tasks)), 1 / len(tasks))
    if takes_mask(network):
        context["mask"] = torch.ones(2, 1, height, width)
    return context


def _drawn(denoiser: Denoiser, sampler: Sampler, lq: Tensor, context: Context) -> list[int]:
    """The steps of a run that draw noise.

    The run also leaves the path's numbers remembered: no trace could ask a schedule for them.
    """
    steps: list[int] = []

    def watched(step: int, shape: Sequence[int]) -> Tensor:
        steps.append(step)
        return torch.zeros(tuple(shape))

    sampler(BoundDenoiser(denoiser, context or None), lq, noise=watched)
    return steps


@torch.no_grad()
def parts(denoiser: Denoiser, sampler: Sampler) -> dict[str, Part]:
    """The programs of a model on the CPU, still to be exported, by name."""
    # Channels last in memory would ask of every size how its strides are ordered.
    denoiser = copy.deepcopy(denoiser).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network, least = denoiser.network, least_side(denoiser)
    height, width = 2 * least + 3, 3 * least + 1  # sizes that nothing else has, with borders
    lq = torch.rand(2, image_channels(network), height, width)
    context = _context(network, height, width)
    steps = _drawn(denoiser, sampler, lq, context)
    given = {"noise": torch.zeros(len(steps), *lq.shape)} if steps else {}
    given |= context
    whole = Positional(_Restore(denoiser, sampler, steps), tuple(given))
    once = Positional(_Denoise(denoiser), tuple(context))
    state = {"x": lq.clone(), "mu": lq, "t": torch.rand(2)}
    made = {
        "restorer": Part(whole, {"lq": lq, **given}, ("restored",)),
        "denoiser": Part(once, {**state, **context}, ("x0", "eps")),
    }
    if known_tasks(network):
        made["classifier"] = Part(Positional(_Classify(network), ()), {"lq": lq}, ("logits",))
    return made


def least_side(denoiser: Denoiser) -> int:
    """The least height and width of a program's images, of which nothing within shrinks to 1."""
    every = [denoiser, *([] if denoiser.start is None else [denoiser.start])]
    return max(32, *(2 * size_multiple(model.network) for model in every))


def axes(value: Tensor) -> dict[int, str]:
    """The axes of an input that may have any size, and their names."""
    free = {max(0, value.ndim - 4): "B"}
    return free | ({value.ndim - 2: "H", value.ndim - 1: "W"} if value.ndim >= 4 else {})
