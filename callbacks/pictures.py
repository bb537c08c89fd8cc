"""Pictures for validation: a labelled grid of images, and quality against NFE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from mrdiff.photo import to_uint8
from mrdiff.photo.sheets import above, beside, fitted, label

Pixels = npt.NDArray[np.uint8]

_LEAST, _MOST = 192, 512  # px: short side of small tiles, long side of large ones
_GAP, _LINE = 6, 24


@dataclass(frozen=True, kw_only=True)
class GridRow:
    """One image in all its versions: uint8 ``[H, W, 3]`` of one size, with a caption below each."""

    name: str
    tiles: Sequence[Pixels]
    captions: Sequence[str]


def to_pixels(image: Tensor) -> Pixels:
    """``[3, H, W]`` in [0, 1] on any device to uint8 ``[H, W, 3]``; values outside are clamped."""
    return rearrange(to_uint8(image), "c h w -> h w c").cpu().numpy()


def _fitted(tile: Pixels) -> Tensor:
    image = rearrange(torch.from_numpy(np.array(tile)), "h w c -> c h w") / 255
    return fitted(image, least=_LEAST, most=_MOST)


def _row(name: str, tiles: Sequence[Tensor], captions: Sequence[str], width: int) -> Tensor:
    """The name upright beside the tiles, each in the middle of its column above its caption."""
    height, free = tiles[0].shape[-2], width - tiles[0].shape[-1]
    cells = []
    for tile, caption in zip(tiles, captions, strict=True):
        centred = functional.pad(tile, (free // 2, free - free // 2, 0, 0), value=1.0)
        cells.append(above([centred, label(caption, width, _LINE)]))
    upright = label(name, height, _LINE).rot90(1, (-2, -1))
    return functional.pad(beside([upright, beside(cells, gap=_GAP)]), (0, 0, 0, _GAP), value=1.0)


def draw_grid(rows: Sequence[GridRow], *, columns: Sequence[str], title: str) -> Pixels:
    """Images in rows and columns with a title, column heads, row names and captions.

    There is at least one row, each of as many tiles and captions as columns; uint8 ``[H, W, 3]``.
    """
    tiles = [[_fitted(tile) for tile in row.tiles] for row in rows]
    width = max(tile.shape[-1] for row in tiles for tile in row)
    whole = len(columns) * (width + _GAP)
    heads = beside([label(head, width, _LINE) for head in columns], gap=_GAP)
    top = above([label(title, whole, _LINE, place="left"), heads])
    named = zip(rows, tiles, strict=True)
    drawn = [_row(row.name, shown, row.captions, width) for row, shown in named]
    return to_pixels(above([functional.pad(top, (_LINE, 0, 0, 0), value=1.0), *drawn]))


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One metric, named with its unit, against NFE: the degraded input's and each sampler's."""

    label: str
    input_value: float
    curves: Mapping[str, Mapping[int, float]]


def _draw_panel(axes: Axes, panel: Panel) -> None:
    axes.axhline(panel.input_value, color="0.45", linestyle="--", linewidth=1.2)
    for i, curve in enumerate(panel.curves.values()):
        axes.plot(list(curve), list(curve.values()), color=f"C{i}", marker="o", linewidth=1.8)
    if len(panel.curves) == 1:
        (curve,) = panel.curves.values()
        digits = 2 if "dB" in panel.label else 3
        for nfe, value in curve.items():
            axes.annotate(
                f"{value:.{digits}f}",
                (nfe, value),
                xytext=(0, 8),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
            )
    ticks = sorted({nfe for curve in panel.curves.values() for nfe in curve})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.margins(x=0.12, y=0.18)
    axes.set_xlabel("NFE (network calls)")
    axes.set_title(panel.label, fontsize=11)
    axes.grid(True, color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_quality(panels: Sequence[Panel], *, title: str) -> Figure:
    """Plot each metric of at least one against the number of network calls, a line a sampler.

    The figure belongs to no window; nothing has to close it.
    """
    figure = Figure(figsize=(4.2 * len(panels), 4.0), dpi=120, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for one, panel in zip(axes, panels, strict=True):
        _draw_panel(one, panel)
    lines = axes[0].get_lines()
    labels = ["degraded input", *panels[0].curves]
    figure.legend(
        lines, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False
    )
    figure.suptitle(title, fontsize=12)
    return figure
