"""Do dead leaves look like photos? The statistics of natural images, side by side, as a table.

    python -m benchmarks.prior_statistics --photos FOLDER [--looks plain all all-text]
        [--count 96] [--size 288] [--sheets FOLDER]

Each cell is the median over pictures with the range from the 10th to the 90th percentile: pictures
must match photos in their variety too. What is measured: luminance and how much of it is clipped,
the spread of colour, derivatives (natural images have a kurtosis far above a Gaussian's 3, at every
scale), the power spectrum (about 1/f^2), how far edges keep to the horizontal and the vertical,
the share of empty patches, and noise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats

from benchmarks.clean_prior import looks
from benchmarks.evaluation import SHARED
from datamodules.datasets.base import find_images
from datamodules.leaves.look import LeafLook
from datamodules.leaves.picture import render
from datamodules.leaves.textures import LUMA
from mrdiff.photo import centre_crop, read_rgb, write_image

Picture = NDArray[np.float32]


def _slope(grey: Picture, least: float, most: float) -> float:
    """The exponent of the power spectrum between two frequencies in cycles a pixel."""
    height, width = grey.shape
    window = np.hanning(height)[:, None] * np.hanning(width)[None]
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    edges = np.geomspace(least, most, 13)
    ring = np.digitize(frequency, edges)
    rings = [power[ring == i].mean() for i in range(1, 13)]
    return float(np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(rings), 1)[0])


def _derivatives(grey: Picture) -> dict[str, float]:
    found = {}
    for scale in (1, 4):
        small = ndimage.uniform_filter(grey, scale)[::scale, ::scale]
        across = np.diff(small, axis=1).ravel()
        found[f"mean of abs(dx) /{scale}"] = float(np.abs(across).mean()) * 255
        found[f"kurtosis of dx /{scale}"] = float(stats.kurtosis(across, fisher=False))
    found["flat (abs(dx) < 2/255)"] = float((np.abs(np.diff(grey, axis=1)) < 2 / 255).mean())
    return found


def _upright(grey: Picture) -> float:
    """Share of the strong gradients within 11.25 degrees of an axis; 0.25 if none is preferred."""
    dy, dx = ndimage.gaussian_filter(grey, 1, (1, 0)), ndimage.gaussian_filter(grey, 1, (0, 1))
    strength, turn = np.hypot(dx, dy), np.arctan2(dy, dx) % (np.pi / 2)
    strong = strength > np.quantile(strength, 0.8)
    near = np.minimum(turn, np.pi / 2 - turn) < np.pi / 16
    return float(near[strong].mean())


def _patches(grey: Picture, side: int = 16) -> dict[str, float]:
    height, width = (n // side * side for n in grey.shape)
    tiles = grey[:height, :width].reshape(height // side, side, width // side, side)
    deviation = tiles.std((1, 3)) * 255
    return {
        "empty patches (sd < 4/255)": float((deviation < 4).mean()),
        "median sd of a patch": float(np.median(deviation)),
        "busy patches (sd > 40/255)": float((deviation > 40).mean()),
    }


def _colours(picture: Picture, grey: Picture) -> dict[str, float]:
    red, green, blue = (picture[..., c].ravel() for c in range(3))
    warm, sky = picture[..., 0] - picture[..., 1], picture[..., 2] - grey
    spread = picture.max(-1) - picture.min(-1)
    correlation = [float(np.corrcoef(a, b)[0, 1]) for a, b in ((red, green), (green, blue))]
    edges = [field - ndimage.gaussian_filter(field, 2) for field in (warm, sky, grey)]
    detail = [float(edge.std()) for edge in edges]
    return {
        "detail of R - G over that of Y": detail[0] / max(detail[2], 1e-6),
        "detail of B - Y over that of Y": detail[1] / max(detail[2], 1e-6),
        "sd of R - G": float(warm.std()) * 255,
        "mean of R - G": float(warm.mean()) * 255,
        "sd of B - Y": float(sky.std()) * 255,
        "mean of B - Y": float(sky.mean()) * 255,
        "max - min of RGB": float(spread.mean()) * 255,
        "correlation R, G": correlation[0],
        "correlation G, B": correlation[1],
    }


def statistics(picture: Picture) -> dict[str, float]:
    """All that is measured of one picture ``[H, W, 3]`` in [0, 1], by name."""
    grey = np.asarray(picture @ LUMA, np.float32)
    diagonal = grey[:-1, :-1] - grey[1:, :-1] - grey[:-1, 1:] + grey[1:, 1:]
    found = {"mean Y": float(grey.mean()) * 255, "sd of Y": float(grey.std()) * 255}
    for share in (1, 10, 50, 90, 99):
        found[f"{share} % of Y"] = float(np.percentile(grey, share)) * 255
    found["black (< 3/255)"] = float((grey < 3 / 255).mean())
    found["white (> 252/255)"] = float((grey > 252 / 255).mean())
    found |= _colours(picture, grey) | _derivatives(grey)
    found["slope of power, f < 0.1"] = _slope(grey, 0.015, 0.1)
    found["slope of power, f > 0.1"] = _slope(grey, 0.1, 0.45)
    found["along the axes"] = _upright(grey)
    found |= _patches(grey)
    found["finest detail (MAD)"] = float(np.median(np.abs(diagonal))) / 0.6745 / 2 * 255
    return found


def photographs(folder: Path, *, count: int, size: int) -> Sequence[Picture]:
    """The centres of photos of a folder, evenly chosen."""
    paths = find_images(folder, role="real photos")
    chosen = [paths[i * len(paths) // count] for i in range(min(count, len(paths)))]
    return [centre_crop(read_rgb(path), size).permute(1, 2, 0).numpy() for path in chosen]


def generated(look: LeafLook, *, count: int, size: int) -> Sequence[Picture]:
    """Pictures of a look."""
    drawn = (render(0, index, size, look) for index in range(count))
    return [np.asarray(picture / 255, np.float32) for picture in drawn]


def _cell(values: Sequence[float]) -> str:
    low, middle, high = np.nanpercentile(values, (10, 50, 90))
    digits = 3 if max(abs(low), abs(high)) < 2 else 1
    return f"{middle:.{digits}f} ({low:.{digits}f} .. {high:.{digits}f})"


def table(sets: dict[str, Sequence[Picture]]) -> str:
    """A Markdown table, a row a statistic and a column a set."""
    measured = {name: [statistics(p) for p in pictures] for name, pictures in sets.items()}
    lines = [f"| | {' | '.join(sets)} |", f"|---|{'---|' * len(sets)}"]
    for key in next(iter(measured.values()))[0]:
        cells = [_cell([found[key] for found in rows]) for rows in measured.values()]
        lines.append(f"| {key} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sheet(pictures: Sequence[Picture], *, columns: int = 6, rows: int = 4) -> Picture:
    """The first pictures side by side, ``[H, W, 3]``."""
    lines = [pictures[i * columns : (i + 1) * columns] for i in range(rows)]
    return np.concatenate([np.concatenate(line, 1) for line in lines if len(line) == columns])


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, nargs="*", default=[SHARED / "data/clean/train"])
    parser.add_argument("--looks", nargs="*", default=["plain", "all"], help="see clean_prior")
    parser.add_argument("--count", type=int, default=96, help="pictures of each set")
    parser.add_argument("--size", type=int, default=288)
    parser.add_argument("--sheets", type=Path, help="folder for a PNG of 24 pictures of each set")
    options = parser.parse_args(given)
    how_many = {"count": options.count, "size": options.size}
    sets = {f"{p.parent.name}/{p.name}": photographs(p, **how_many) for p in options.photos}
    sets |= {name: generated(looks()[name], **how_many) for name in options.looks}
    print(table(sets))
    if options.sheets:
        for name, pictures in sets.items():
            image = torch.from_numpy(sheet(pictures)).permute(2, 0, 1)
            write_image(options.sheets / f"{name.replace('/', '_')}.png", image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
