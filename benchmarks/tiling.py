"""Tiles: do they show, what memory do they take, and does time grow with the pixels alone?

    python -m benchmarks.tiling --checkpoint best.ckpt --input photo.png [--sizes 0.25 1 4 24]

First the photo in tiles of 128 pixels against the photo in one piece: the mean difference in grey
levels, and the seam score, the mean step between neighbouring pixels across the tiles' borders over
that elsewhere, of both. Then photos of growing size, the photo repeated, each in a process of its
own as ``sample.py`` restores it, after one of a megapixel: seconds of the sampler and peak memory
of the process. The photo before it touches the memory that the process then keeps, as the first
photo of a folder does for the others.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mrdiff.checkpoints.places import find_model
from mrdiff.photo import read_rgb, write_image
from mrdiff.restoration.restorer import Restorer
from mrdiff.restoration.tiled_denoiser import even_tile, tile_spans

ROOT = Path(__file__).parents[1]
TILE, OVERLAP = 128, 32
_MEASURED = """
import resource, sys
from mrdiff.cli.main import main
status = main(["sample", *sys.argv[1:]])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(status)
"""


def seam_score(image: Tensor, tile: int, overlap: int) -> float:
    """Mean step of ``[C, H, W]`` across the borders of tiles, over that between other pixels."""
    scores = []
    for axis in (-2, -1):
        steps = image.diff(dim=axis).abs().mean(0).mean(-1 if axis == -2 else -2)
        length = image.shape[axis]
        spans = tile_spans(length, even_tile(length, tile, overlap), overlap)
        edges = {edge - 1 for span in spans for edge in span if 0 < edge < length}
        at = torch.zeros(len(steps), dtype=torch.bool)
        at[sorted(edges)] = True
        scores.append(float(steps[at].mean() / steps[~at].mean()))
    return sum(scores) / 2


def seams(options: argparse.Namespace) -> None:
    """The first table."""
    photo = read_rgb(options.input)
    results = {}
    for name, tile in (("one piece", "off"), ("tiles", TILE)):
        restorer = Restorer.from_checkpoint(options.checkpoint, tile=tile, device="cpu")
        results[name] = restorer(photo, name="photo")
    difference = (results["tiles"] - results["one piece"]).abs().mean() * 255
    whole, tiled = (seam_score(image, TILE, OVERLAP) for image in results.values())
    print(f"{photo.shape[2]} x {photo.shape[1]}, tiles of {TILE} pixels, overlap {OVERLAP}\n")
    print("| mean difference, grey levels | seam score, one piece | tiles | ratio |")
    print("|---|---|---|---|")
    print(f"| {difference:.4f} | {whole:.4f} | {tiled:.4f} | {tiled / whole:.4f} |")


def mosaic(photo: Tensor, megapixels: float, path: Path) -> tuple[int, int]:
    """Write the photo, repeated; its width and height."""
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    width = round(1.5 * height)
    repeats = [-(-a // b) for a, b in zip((height, width), photo.shape[1:], strict=True)]
    write_image(path, photo.repeat(1, *repeats)[:, :height, :width])
    return width, height


def sizes(options: argparse.Namespace) -> None:
    """The second table."""
    photo = read_rgb(options.input)
    print("\n| megapixels | size | tile | seconds | seconds a megapixel | peak memory |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for megapixels in options.sizes:
            folder = Path(scratch) / f"{megapixels:g}"
            folder.mkdir()
            mosaic(photo, 1.0, folder / "0.jpg")
            width, height = mosaic(photo, megapixels, folder / "1.jpg")
            command = [
                *(sys.executable, "-c", _MEASURED, "--checkpoint", str(options.checkpoint)),
                *("--input", str(folder), "--output", f"{scratch}/out", "--device", "cpu"),
                *("--log", f"{scratch}/log.jsonl"),
            ]
            said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            memory = float(said.stdout.split()[-1]) / 2**30
            facts = json.loads(Path(scratch, "log.jsonl").read_text().splitlines()[-1])
            each = facts["seconds"] / (width * height / 1e6)
            row = f"{megapixels:g} | {width} x {height} | {facts['tile']} | {facts['seconds']:.1f}"
            print(f"| {row} | {each:.2f} | {memory:.2f} GiB |", flush=True)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=find_model, required=True)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.25, 1, 4, 12, 24])
    options = parser.parse_args(given)
    seams(options)
    sizes(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
