"""Pictures of the way from noise to photo: a strip of states, and paths in their principal plane.

The latter are drawn by :mod:`mrdiff.cli.trajectory_pca`.

States are noise at the scale of pixels, so a large photo is cropped, not shrunk, with its part of
the whole photo's noise: but for what the network sees beyond the crop's edge, this is what the
restored photo went through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from mrdiff.baselines import BaselineSampler
from mrdiff.cli.compare import label_strip
from mrdiff.cli.trajectory_pca import pca_figure
from mrdiff.denoiser import DenoiserLike, Prediction
from mrdiff.noise import Noise, NoiseSource, named_noise
from mrdiff.photo import composite, write_image
from mrdiff.restore import Restorer
from mrdiff.sampler import SAMPLER_NAMES, MRSampler, named_sampler

__all__ = ["Trajectory", "compared_samplers", "record", "strip", "write_trajectory"]

Sampler = MRSampler | BaselineSampler

CROP = 512  # pixels, the longest side that is followed
REFERENCE_CALLS = 50
COMPARED = ("mr-ode-1", "mr-ode-2", "mr-sde-1", "euler-ode", "posterior")
_LABEL, _GAP = 34, 8  # pixels in the strip


@dataclass(frozen=True)
class Trajectory:
    """What a photo went through in K network calls, on the CPU, not clamped: times of the states,
    states x_t and predicted x0 ``[K, C, H, W]``, and the result, ``end`` ``[C, H, W]``."""

    times: list[float]
    states: Tensor
    predictions: Tensor
    end: Tensor

    @property
    def path(self) -> Tensor:
        """The states and the result, ``[K + 1, C, H, W]``."""
        return torch.cat([self.states, self.end[None]])


@torch.no_grad()
def record(denoiser: DenoiserLike, sampler: Sampler, mu: Tensor, noise: Noise = None) -> Trajectory:
    """Restore one degraded photo ``[C, H, W]`` and keep every state and prediction."""
    calls: list[tuple[float, Tensor, Tensor]] = []

    def keep(step: int, t: float, x: Tensor, prediction: Prediction) -> None:
        calls.append((t, x[0].cpu(), prediction.x0[0].cpu()))

    end = sampler(denoiser, mu[None], noise=noise, callback=keep)[0].cpu()
    times, states, predictions = zip(*calls, strict=True)
    return Trajectory(list(times), torch.stack(states), torch.stack(predictions), end)


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
    count = len(trajectory.times)
    shown = np.linspace(0, count - 1, min(count, columns)).round().astype(int).tolist()
    states = [*(f"state at t = {trajectory.times[i]:.3f}" for i in shown), "result"]
    predictions = [*("predicted x0" for _ in shown), beside[0]]
    upper = _row([*trajectory.states[shown], trajectory.end], states, side)
    lower = _row([*trajectory.predictions[shown], beside[1]], predictions, side)
    return torch.cat([upper, lower], dim=-2)


def compared_samplers(own: Sampler) -> dict[str, Sampler]:
    """``own`` by its name, then :data:`COMPARED` at its NFE and temperature: the same start."""

    def presets(temperature: float | None) -> dict[str, Sampler]:
        return {n: named_sampler(n, nfe=own.nfe, temperature=temperature) for n in SAMPLER_NAMES}

    alike = presets(own.temperature)
    known = [*presets(None).items(), *alike.items()]
    equal = (name for name, one in known if vars(one) == vars(own))
    others = {name: alike[name] for name in COMPARED if vars(alike[name]) != vars(own)}
    return {next(equal, "this run"): own, **others}


def _middle(image: Tensor) -> Tensor:
    """The middle of ``[…, H, W]``, from a multiple of 16: strided networks see the same grid."""
    top, left = (max(0, (length - CROP) // 32 * 16) for length in image.shape[-2:])
    return image[..., top : top + CROP, left : left + CROP]


def _pixels(figure: Figure) -> Tensor:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3]).permute(2, 0, 1) / 255


def write_trajectory(
    restorer: Restorer,
    photo: Tensor,
    stem: Path,
    *,
    name: str,
    truth: Tensor | None = None,
    samplers: Mapping[str, Sampler] | None = None,
) -> None:
    """Write ``stem.png``, the first sampler's strip, and ``stem_pca.png``; the strip last.

    Args:
        restorer: its denoiser and seed are used.
        photo: degraded, RGB ``[3, H, W]`` in [0, 1]; its middle is followed if it is large.
        stem: path without suffix.
        name: what the noise is drawn from, besides the seed.
        truth: of the photo's shape.
        samplers: by label; otherwise :func:`compared_samplers` of the restorer's own.

    Raises:
        PhotoError: a picture cannot be written; there is no part of it then.
    """
    samplers = samplers or compared_samplers(restorer.sampler)
    own, middle = next(iter(samplers.values())), _middle(photo)
    mu = middle.to(next(restorer.denoiser.parameters()).device)
    noise = named_noise(restorer.seed, [name])

    def follow(sampler: Sampler) -> Trajectory:
        part: NoiseSource = lambda step, _: _middle(noise(step, (1, *photo.shape)))  # noqa: E731
        return record(restorer.denoiser, sampler, mu, part)

    calls = max(REFERENCE_CALLS, 2 * own.nfe)
    fine = follow(named_sampler("mr-ode-2", nfe=calls, temperature=own.temperature))
    ways = {label: follow(sampler) for label, sampler in samplers.items()}
    marks = {"degraded": middle} | ({} if truth is None else {"ground truth": _middle(truth)})
    picture = strip(next(iter(ways.values())), beside=list(marks.items())[-1])
    figure = pca_figure(ways, reference=(f"mr-ode-2, {calls} calls", fine), landmarks=marks)
    write_image(stem.with_name(f"{stem.name}_pca.png"), _pixels(figure))
    write_image(stem.with_name(f"{stem.name}.png"), picture)
