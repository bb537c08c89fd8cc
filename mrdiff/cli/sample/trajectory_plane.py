"""The paths of several samplers from noise to photo, in the principal plane of their states."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["Plane", "pca_figure"]


class Plane(NamedTuple):
    """Two principal components of images of N pixels, and the shares of the variance along them.

    The axes ``[2, N]`` are orthonormal; the second is 0 if all images lie on a line.
    """

    mean: Tensor
    axes: Tensor
    shares: list[float]

    @classmethod
    def through(cls, images: Tensor) -> Plane:
        """Fit to ``[n, …]``, n images of N pixels, n << N.

        The small X Xᵀ = U S² Uᵀ of the centred images X = U S Vᵀ gives U and S, and V = Xᵀ U / S:
        nothing of size N x N is needed. Signs are free: the last image is to the right of the
        first, and the long tail of the points hangs down.
        """
        flat = images.flatten(1)
        centred = flat - flat.mean(0)
        # Squares of small components need float64; in parts, to need no copy of all the images.
        parts = (part.double() for part in centred.split(1 << 16, dim=1))
        gram = torch.stack([part @ part.T for part in parts]).sum(0)
        u, squares, _ = torch.linalg.svd(gram)
        u, leading, total = u[:, :2], squares[:2], gram.trace()
        scale = torch.where(leading > 1e-12 * total, leading.rsqrt(), 0.0)
        turns = torch.stack([u[-1, 0] - u[0, 0], -u[:, 1].pow(3).sum()])
        axes = (u * scale * torch.where(turns < 0, -1.0, 1.0)).T.to(flat) @ centred
        return cls(flat.mean(0), axes, (leading / total.clamp_min(1e-300)).tolist())

    def project(self, images: Tensor) -> np.ndarray:
        """Coordinates ``[n, 2]`` of ``[n, …]``: RMS over the pixels, in grey levels 0 to 255."""
        scores = (images.flatten(1) - self.mean) @ self.axes.T
        return (255.0 / math.sqrt(len(self.mean)) * scores).double().numpy()


def _draw_path(axes: Axes, points: np.ndarray, label: str, colour: str, *, own: bool) -> None:
    """A path with a dot a state, an arrow on each leg and a large dot at its end."""
    width, order = (4.5, 3.0) if own else (1.6, 4.0)  # own: broad, below those that cover it
    axes.plot(*points.T, color=colour, marker="o", ms=4, lw=width, label=label, zorder=order)
    arrow = {"arrowstyle": "-|>", "color": colour, "lw": 0, "mutation_scale": 14 + width}
    for start, stop in itertools.pairwise(points):
        axes.annotate("", 0.4 * start + 0.6 * stop, start, arrowprops=arrow, zorder=order)
    axes.plot(*points[-1], "o", color=colour, ms=12 if own else 7, mec="black", zorder=order + 2)


def pca_figure(
    paths: Mapping[str, Tensor],
    *,
    reference: tuple[str, Tensor] | None = None,
    landmarks: Mapping[str, Tensor] | None = None,
) -> Figure:
    """The paths ``[K, C, H, W]`` of several samplers from one noise, in the plane of their states.

    The first is drawn broadly. ``reference``, label and path of a fine solution, is a thin line; it
    and the ``landmarks``, up to three images ``[C, H, W]``, take no part in choosing the plane.
    """
    plane = Plane.through(torch.cat(list(paths.values())))
    figure = Figure(figsize=(9.6, 6.4), dpi=130, layout="constrained")
    axes = figure.subplots(subplot_kw={"aspect": "equal", "adjustable": "datalim"})
    for i, (label, path) in enumerate(paths.items()):
        _draw_path(axes, plane.project(path), label, f"C{i}", own=i == 0)
    if reference is not None:
        fine = plane.project(reference[1])
        axes.plot(*fine.T, color="black", lw=1.0, label=reference[0], zorder=5)
    marks = {"start of all, t = 1": next(iter(paths.values()))[0], **(landmarks or {})}
    looks = (("D", "black"), ("X", "white"), ("*", "gold"), ("P", "white"))
    for (label, image), (marker, colour) in zip(marks.items(), looks, strict=False):
        place = plane.project(image[None]).T
        axes.plot(*place, marker, label=label, color=colour, mec="black", ms=12, ls="", zorder=7)
    shares = [f"{share:.0%} of the variance, grey levels RMS" for share in plane.shares]
    axes.set(xlabel=f"component 1: {shares[0]}", ylabel=f"component 2: {shares[1]}")
    axes.grid(True, color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=5, frameon=False)
    return figure
