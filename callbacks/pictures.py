"""Pictures for validation: a labelled grid of images, and quality against NFE."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Pixels = npt.NDArray[np.uint8]

_MIN_TILE = 192  # px, short side: below this the captions would not fit
_MAX_TILE = 512  # px, long side
_GAP = 6
_TEXT = 15
_LINE = 24  # height of a line of text with its margins
_INK = (32, 32, 32)


@dataclass(frozen=True, kw_only=True)
class GridRow:
    """One image in all its versions.

    Attributes:
        name: label of the row.
        tiles: uint8 [H, W, 3], all of one size; one a column.
        captions: text below each tile.
    """

    name: str
    tiles: Sequence[Pixels]
    captions: Sequence[str]


def to_pixels(image: Tensor) -> Pixels:
    """[3, H, W] in [0, 1] on any device to uint8 [H, W, 3]; values outside are clamped."""
    scaled = image.detach().float().clamp(0.0, 1.0).mul(255.0).round()
    return scaled.permute(1, 2, 0).cpu().numpy().astype(np.uint8)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Pillow has no scalable font of its own in every build; matplotlib always brings this one.
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), size)


def _shorten(text: str, width: int) -> str:
    """Cut the front off a long name, whose end tells images of one folder apart."""
    if _font(_TEXT).getlength(text) <= width:
        return text
    while text and _font(_TEXT).getlength("…" + text) > width:
        text = text[1:]
    return "…" + text


def _resize_tile(pixels: Pixels) -> Image.Image:
    """Enlarge small tiles by a whole factor, pixels kept square and sharp; shrink large ones."""
    tile = Image.fromarray(pixels)
    factor = math.ceil(_MIN_TILE / min(tile.size))
    if factor > 1:
        return tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST)
    tile.thumbnail((_MAX_TILE, _MAX_TILE), Image.Resampling.LANCZOS)
    return tile


def _vertical_label(text: str, length: int) -> Image.Image:
    label = Image.new("RGB", (length, _LINE), "white")
    position = (length / 2, _LINE / 2)
    ImageDraw.Draw(label).text(
        position, _shorten(text, length), fill=_INK, font=_font(_TEXT), anchor="mm"
    )
    return label.rotate(90, expand=True)


def draw_grid(rows: Sequence[GridRow], *, columns: Sequence[str], title: str) -> Pixels:
    """Draw images in rows and columns with a title, column heads, row names and captions.

    Args:
        rows: at least one row, each with as many tiles and captions as there are columns.
        columns: heads of the columns.
        title: one line at the top.

    Returns:
        uint8 [H, W, 3].
    """
    tiles = [[_resize_tile(tile) for tile in row.tiles] for row in rows]
    width = max(tile.width for row in tiles for tile in row)
    heights = [row[0].height for row in tiles]
    size = (
        _LINE + len(columns) * (width + _GAP),
        2 * _LINE + sum(heights) + len(rows) * (_LINE + _GAP),
    )
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((_LINE, _LINE / 2), title, fill=_INK, font=_font(_TEXT), anchor="lm")
    centres = [_LINE + i * (width + _GAP) + width // 2 for i in range(len(columns))]
    for centre, head in zip(centres, columns, strict=True):
        draw.text((centre, 1.5 * _LINE), head, fill=_INK, font=_font(_TEXT), anchor="mm")
    top = 2 * _LINE
    for row, row_tiles, height in zip(rows, tiles, heights, strict=True):
        canvas.paste(_vertical_label(row.name, height), (0, top))
        for centre, tile, caption in zip(centres, row_tiles, row.captions, strict=True):
            canvas.paste(tile, (centre - tile.width // 2, top))
            below = (centre, top + height + _LINE / 2)
            draw.text(below, caption, fill=_INK, font=_font(_TEXT), anchor="mm")
        top += height + _LINE + _GAP
    return np.asarray(canvas)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One metric against NFE.

    Attributes:
        label: name of the metric, with its unit.
        input_value: the degraded input's own value.
        curves: for every sampler its value at each NFE.
    """

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
    """Plot each metric against the number of network calls, a line a sampler, the input dashed.

    Args:
        panels: at least one.
        title: one line at the top.

    Returns:
        A figure that belongs to no window; nothing has to close it.
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
