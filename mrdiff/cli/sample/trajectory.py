"""Pictures of the way from noise to photo: a strip of states, and paths in their principal plane.

States are noise at the scale of pixels, so a large photo is cropped, not shrunk, with its part of
the whole photo's noise: but for what the network sees beyond the crop's edge, this is what the
restored photo went through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from mrdiff.cli.common.features import PhotoFeatures
from mrdiff.cli.common.jobs import Job
from mrdiff.cli.sample.batches import load
from mrdiff.cli.sample.trajectory_plane import pca_figure
from mrdiff.diffusion.prediction import Prediction
from mrdiff.diffusion.wrappers import BoundDenoiser, DenoiserLike
from mrdiff.networks.protocol import Context
from mrdiff.photo import PhotoError, read_rgb, to_rgb, write_image
from mrdiff.photo.sheets import above, fitted, side_by_side
from mrdiff.restoration.restorer import Restorer
from mrdiff.solvers.noise import Noise, NoiseSource, named_noise
from mrdiff.solvers.presets import make_sampler
from mrdiff.solvers.run import Sampler
from mrdiff.system.memory import is_out_of_memory
from mrdiff.system.names import SAMPLERS

__all__ = ["Trajectory", "compared_samplers", "follow", "record", "strip", "write_trajectory"]

CROP = 512  # pixels, the longest side that is followed
REFERENCE_CALLS = 50
STATES = 16  # of each sampler that are kept: memory does not grow with the calls
COMPARED = ("mr-ode-1", "mr-ode-2", "mr-sde-1", "euler-ode", "posterior")
_LABEL = 34  # height in pixels in the strip


@dataclass(frozen=True)
class Trajectory:
    """What a photo went through in K network calls, on the CPU, not clamped.

    States x_t and predicted x0 are ``[K, C, H, W]`` (``[0, C, H, W]`` if not recorded), ``end`` is
    the result ``[C, H, W]``.
    """

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
    """Restore one degraded photo ``[C, H, W]`` and record ``most`` of its calls, or all.

    They are evenly spread, with the first and the last; ``predicted`` records x0 of each, too.
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


def strip(
    trajectory: Trajectory, *, beside: tuple[str, Tensor], side: int = 256, columns: int = 8
) -> Tensor:
    """States above, predictions below, a column a network call, then the result, as one picture.

    Below the result stands ``beside``, a name and an image ``[C, H, W]``; panels have ``side``
    pixels at most, and of more calls than ``columns`` so many are shown. Values are clipped to
    [0, 1]. Shrinking averages pixels: the noise of a shrunk state looks weaker than it is.
    """
    shown = _spread(len(trajectory.times), columns)
    states = [*(f"state at t = {trajectory.times[i]:.3f}" for i in shown), "result"]
    predictions = [*("predicted x0" for _ in shown), beside[0]]
    rows = [
        ([*trajectory.states[shown], trajectory.end], states),
        ([*trajectory.predictions[shown], beside[1]], predictions),
    ]
    fit = partial(fitted, least=side, most=side)
    return above([side_by_side([*map(fit, row)], names, height=_LABEL) for row, names in rows])


def _settings(sampler: Sampler) -> dict[str, Any]:
    def plain(grid: Any) -> Any:
        if isinstance(grid, Mapping):
            return {nfe: plain(times) for nfe, times in grid.items()}
        named = grid is None or isinstance(grid, str) or callable(grid)
        return grid if named else [float(t) for t in grid]

    settings = {**sampler.options(), "kind": type(sampler)}
    return {**settings, "grid": plain(settings.get("grid"))}


def compared_samplers(own: Sampler) -> dict[str, Sampler]:
    """``own`` by its name, then :data:`COMPARED` at its NFE and temperature: the same start."""

    def presets(temperature: float | None) -> dict[str, Sampler]:
        return {n: make_sampler(n, nfe=own.nfe, temperature=temperature) for n in SAMPLERS}

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
    pixels = torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3])
    return rearrange(pixels, "h w c -> c h w") / 255


def _context(
    restorer: Restorer, photo: Tensor, mask: Tensor | None, features: Context | None
) -> Context | None:
    """The context of the whole photo, cut to the middle that is followed."""
    mu = photo[None].to(restorer.device)
    whole = None if mask is None else mask[None]
    context = restorer.context(mu, mask=whole, features=[features or {}])
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
    features: Context | None = None,
    samplers: Mapping[str, Sampler] | None = None,
) -> None:
    """Write ``strip.png``, of the first sampler, and ``pca.png`` into a folder; the strip last.

    The middle of a large ``photo`` ``[3, H, W]`` is followed. ``name`` is what the noise is drawn
    from, besides the seed; ``mask``, ``[1, H, W]``, is 1 where the photo is intact and 0 in holes;
    ``samplers`` are by label, otherwise :func:`compared_samplers` of the restorer's own; those that
    do not suit the model's path are left out.

    Raises:
        PhotoError: a picture cannot be written; there is no part of it then.
    """
    path, known = restorer.denoiser.process, samplers or compared_samplers(restorer.sampler)
    samplers = {name: each for name, each in known.items() if each.suits(path)}
    own, middle = next(iter(samplers.values())), _middle(photo)
    mu = middle.to(restorer.device)
    noise = named_noise(restorer.seed, [name], device=restorer.device)
    part: NoiseSource = lambda step, _: _middle(noise(step, (1, *photo.shape)))  # noqa: E731
    denoiser = BoundDenoiser(restorer.denoiser, _context(restorer, photo, mask, features))
    way = partial(record, denoiser, mu=mu, noise=part)
    calls = max(REFERENCE_CALLS, 2 * own.nfe)
    exact = make_sampler("mr-ode-2", nfe=calls, temperature=own.temperature)
    fine = way(exact, most=REFERENCE_CALLS, predicted=False)
    ways = {n: way(one, most=STATES, predicted=one is own) for n, one in samplers.items()}
    marks = {"degraded": middle} | ({} if truth is None else {"ground truth": _middle(truth)})
    figure = pca_figure(
        {label: each.path for label, each in ways.items()},
        reference=(f"mr-ode-2, {calls} calls", fine.path),
        landmarks=marks,
    )
    picture = strip(next(iter(ways.values())), beside=list(marks.items())[-1])
    write_image(folder / "pca.png", _pixels(figure))
    write_image(folder / "strip.png", picture)


def follow(restorer: Restorer, features: PhotoFeatures, job: Job, folder: Path) -> None:
    """Write the trajectory of a photo that is restored, see :func:`write_trajectory`."""
    loaded = load(job)
    truth = None if job.reference is None else read_rgb(job.reference)
    photo, mask, known = to_rgb(loaded.photo.image), loaded.mask, features(job.key)
    try:
        write_trajectory(
            restorer, photo, folder, name=job.name, truth=truth, mask=mask, features=known
        )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise PhotoError(f"{job.source}: out of memory for its trajectory") from error
