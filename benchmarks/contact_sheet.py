"""A sheet of all ten degradations on real photos, as training sees them.

    python -m benchmarks.contact_sheet docs/degradations.jpg [--size 192] [--seed 1]

One row a photo of the scikit-image wheel, one column a degradation of universal.yaml.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from mrdiff.cli.train.arguments import prepare
from mrdiff.cli.train.run import build_run
from mrdiff.photo import to_pil

LABEL = 22
PHOTOS = (0, 2, 3, 4)  # of datamodules.DemoPhotos


def sheet(size: int, seed: int) -> Image.Image:
    """The sheet, RGB."""
    flags = ["--data.val.size", str(size), "--data.val.seed", str(seed)]
    data = build_run(prepare(["--config", "universal.yaml", *flags])).datamodule
    names = ["clean", *data.tasks]
    width, height = len(names) * (size + 2), LABEL + len(PHOTOS) * (size + 2)
    picture = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for column, name in enumerate(names):
        draw.text((column * (size + 2) + 4, 3), name, fill="black", font=font)
    for row, photo in enumerate(PHOTOS):
        samples = [data.sets["val"][photo * len(data.tasks) + i] for i in range(len(data.tasks))]
        images = [samples[0]["gt"], *(sample["lq"] for sample in samples)]
        for column, image in enumerate(images):
            picture.paste(to_pil(image), (column * (size + 2), LABEL + row * (size + 2)))
    return picture


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    sheet(options.size, options.seed).save(options.output, quality=88)
    return 0


if __name__ == "__main__":
    sys.exit(main())
