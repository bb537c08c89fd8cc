"""Pictures of the way from noise to photo: a strip of states, and paths in their principal plane.

The latter are drawn by :mod:`mrdiff.cli.sample.trajectory_plane`.

States are noise at the scale of pixels, so a large photo is cropped, not shrunk, with its part of
the whole photo's noise: but for what the network sees beyond the crop's edge, this is what the
restored photo went through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from mrdiff.cli.sample.trajectory_plane import pca_figure
from mrdiff.diffusion.denoiser import BoundDenoiser, DenoiserLike, Prediction
from mrdiff.names import SAMPLERS
from mrdiff.networks.conditions import Context
from mrdiff.photo import composite, write_image
from mrdiff.photo.comparison import label_strip
from mrdiff.restoration.restorer import Restorer
from mrdiff.solvers.baselines import BaselineSampler
from mrdiff.solvers.noise import Noise, NoiseSource, named_noise
from mrdiff.solvers.sampler import MRSampler, named_sampler

__all__ = ["Trajectory", "compared_samplers", "record", "strip", "write_trajectory"]

Sampler = MRSampler | BaselineSampler

CROP = 512  # pixels, the longest side that is followed
REFERENCE_CALLS = 50
STATES = 16  # of each sampler that are kept: memory does not grow with the calls
COMPARED = ("mr-ode-1", "mr-ode-2", "mr-sde-1", "euler-ode", "posterior")
_LABEL, _GAP = 34, 8  # pixels in the strip


@dataclass(frozen=True)
class Trajectory:
    """What a photo went through in K network calls, on the CPU, not clamped: times of the states,
    states x_t and predicted x0 ``[K, C, H, W]``, and the result, ``end`` ``[C, H, W]``. Of many
    calls some may be kept, and no predictions: ``[0, C, H, W]``."""

    times: list[float]
    states: Tensor
    predictions: Tensor
    end: Tensor

    @property
    def path(self) -> Tensor:
        """The states and the result, ``[K + 1, C, H, W]``."""
        return torch.cat([self.states, self.end[None]])


def _spread(total: int, most: int) -> list[int]:
    """``most`` of the indices below ``total``, evenly spread with the first and last, or all."""
    return np.linspace(0, total - 1, min(total, most)).round().astype(int).tolist()


@torch.no_grad()
def record(
    denoiser: DenoiserLike,
    sampler: Sampler,
    mu: Tensor,
    noise: Noise = None,
    *,
    most: int | None = None,
    predicted: bool = True,
) -> Trajectory:
    """Restore one degraded photo ``[C, H, W]`` and keep its states and predictions.

    Args:
        most: network calls to keep, evenly spread with the first and last; None: all.
        predicted: whether to keep the predictions, too.
    """
    times: list[float] = []
    states: list[Tensor] = []
    predictions: list[Tensor] = []
    kept = set(_spread(sampler.nfe, most or sampler.nfe))

    def keep(step: int, t: float, x: Tensor, prediction: Prediction) -> None:
        if step in kept:
            times.append(t)
            states.append(x[0].cpu())
            if predicted:
                predictions.append(prediction.x0[0].cpu())

    end = sampler(denoiser, mu[None], noise=noise, callback=keep)[0].cpu()
    x0 = torch.stack(predictions) if predicted else end.new_empty(0, *end.shape)
    return Trajectory(times, torch.stack(states), x0, end)


def _panel(image: Tensor, side: int) -> Tensor:
    """RGB, its longest side at most ``side``: shrunk smoothly, or enlarged by a whole factor."""
    image = composite(image.float().clamp(0.0, 1.0))
    scale = side / max(image.shape[-2:])
    if scale >= 1:
        return functional.interpolate(image[None], scale_factor=int(scale), mode="nearest")[0]
    size = [max(1, round(length * scale)) for length in image.shape[-2:]]
    return functional.interpolate(image[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)


def _row(images: Sequence[Tensor], labels: Sequence[str], side: int) -> Tensor:
    columns: list[Tensor] = []
    for panel, label in zip((_panel(image, side) for image in images), labels, strict=True):
        columns.append(torch.cat([label_strip(label, panel.shape[-1], _LABEL), panel], dim=-2))
        columns.append(torch.ones(3, columns[0].shape[-2], _GAP))
    return torch.cat(columns[:-1], dim=-1)


def strip(
    trajectory: Trajectory, *, beside: tuple[str, Tensor], side: int = 256, columns: int = 8
) -> Tensor:
    """States above, predictions below, a column a network call, then the result, as one picture.

    Values are clipped to [0, 1] for display. Shrinking averages pixels: the noise of a shrunk
    state looks weaker than it is.

    Args:
        beside: name and image ``[C, H, W]`` of what stands below the result.
        side: the longest side of a panel in pixels.
        columns: the most calls shown; of more calls so many, evenly spread.
    """
    shown = _spread(len(trajectory.times), columns)
    states = [*(f"state at t = {trajectory.times[i]:.3f}" for i in shown), "result"]
    predictions = [*("predicted x0" for _ in shown), beside[0]]
    upper = _row([*trajectory.states[shown], trajectory.end], states, side)
    lower = _row([*trajectory.predictions[shown], beside[1]], predictions, side)
    return torch.cat([upper, lower], dim=-2)


def _settings(sampler: Sampler) -> dict[str, Any]:
    """What makes a sampler, comparable: times are lists, tensors of them have no one truth."""

    def plain(grid: Any) -> Any:
        if isinstance(grid, Mapping):
            return {nfe: plain(times) for nfe, times in grid.items()}
        named = grid is None or isinstance(grid, str) or callable(grid)
        return grid if named else [float(t) for t in grid]

    settings = vars(sampler)
    return {**settings, "grid": plain(settings.get("grid"))}


def compared_samplers(own: Sampler) -> dict[str, Sampler]:
    """``own`` by its name, then :data:`COMPARED` at its NFE and temperature: the same start."""

    def presets(temperature: float | None) -> dict[str, Sampler]:
        return {n: named_sampler(n, nfe=own.nfe, temperature=temperature) for n in SAMPLERS}

    alike, mine = presets(own.temperature), _settings(own)
    known = [*presets(None).items(), *alike.items()]
    equal = (name for name, one in known if _settings(one) == mine)
    others = {name: alike[name] for name in COMPARED if _settings(alike[name]) != mine}
    return {next(equal, "this run"): own, **others}


def _middle(image: Tensor) -> Tensor:
    """The middle of ``[…, H, W]``, from a multiple of 16: strided networks see the same grid."""
    top, left = (max(0, (length - CROP) // 32 * 16) for length in image.shape[-2:])
    return image[..., top : top + CROP, left : left + CROP]


def _pixels(figure: Figure) -> Tensor:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3]).permute(2, 0, 1) / 255


def _told(
    restorer: Restorer,
    photo: Tensor,
    mask: Tensor | None,
    features: Mapping[str, Tensor] | None,
) -> Context | None:
    """The context of the whole photo, cut to the middle that is followed."""
    device = next(restorer.denoiser.parameters()).device
    whole = None if mask is None else mask[None].to(device)
    known = [features or {}]
    context = restorer.context(photo[None].to(device), mask=whole, features=known)
    if context is not None and "mask" in context:
        context["mask"] = _middle(context["mask"])
    return context


def write_trajectory(
    restorer: Restorer,
    photo: Tensor,
    folder: Path,
    *,
    name: str,
    truth: Tensor | None = None,
    mask: Tensor | None = None,
    features: Mapping[str, Tensor] | None = None,
    samplers: Mapping[str, Sampler] | None = None,
) -> None:
    """Write ``strip.png``, of the first sampler, and ``pca.png`` into a folder; the strip last.

    Args:
        restorer: its denoiser and seed are used.
        photo: degraded, RGB ``[3, H, W]`` in [0, 1]; its middle is followed if it is large.
        folder: is made if it is missing.
        name: what the noise is drawn from, besides the seed.
        truth: of the photo's shape.
        mask: ``[1, H, W]``, 1 where the photo was kept and 0 in holes.
        features: of the photo, ``[1, D]``, as far as they are known.
        samplers: by label; otherwise :func:`compared_samplers` of the restorer's own.

    Raises:
        PhotoError: a picture cannot be written; there is no part of it then.
    """
    samplers = samplers or compared_samplers(restorer.sampler)
    own, middle = next(iter(samplers.values())), _middle(photo)
    mu = middle.to(next(restorer.denoiser.parameters()).device)
    noise = named_noise(restorer.seed, [name])
    part: NoiseSource = lambda step, _: _middle(noise(step, (1, *photo.shape)))  # noqa: E731
    denoiser = BoundDenoiser(restorer.denoiser, _told(restorer, photo, mask, features))
    follow = partial(record, denoiser, mu=mu, noise=part)
    calls = max(REFERENCE_CALLS, 2 * own.nfe)
    exact = named_sampler("mr-ode-2", nfe=calls, temperature=own.temperature)
    fine = follow(exact, most=REFERENCE_CALLS, predicted=False)
    ways = {n: follow(one, most=STATES, predicted=one is own) for n, one in samplers.items()}
    marks = {"degraded": middle} | ({} if truth is None else {"ground truth": _middle(truth)})
    figure = pca_figure(ways, reference=(f"mr-ode-2, {calls} calls", fine), landmarks=marks)
    picture = strip(next(iter(ways.values())), beside=list(marks.items())[-1])
    write_image(folder / "pca.png", _pixels(figure))
    write_image(folder / "strip.png", picture)
