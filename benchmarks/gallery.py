"""The pictures of docs/gallery.md: each task before and after, by the bundled model.

    python -m benchmarks.gallery docs/gallery [--checkpoint universal]
    python -m benchmarks.gallery docs --demo out/demo       # docs/demo.jpg, of what make demo made

The photos of the scikit-image wheel under the degradations of universal.yaml, restored with 5 calls
of `fidelity`. Writes a picture a task, which the model judges by itself, and prints the table: PSNR
in dB, degraded, restored, and restored with the task named, means over the six photos.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.evaluation import own_photos, quality
from datamodules import Sample
from mrdiff.checkpoints.reading import load_model
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.metrics import Meter
from mrdiff.networks.protocol import known_tasks
from mrdiff.photo import read_rgb, to_pil
from mrdiff.photo.sheets import GAP, above, beside, fitted, label, side_by_side

SHOWN = ("chelsea", "motorcycle_left")


def row(denoiser: Denoiser, task: str, samples: list[Sample], folder: Path) -> str:
    """Write the picture of a task; its line of the table."""
    kept, meter = dict[str, torch.Tensor](), Meter(("psnr",))
    judged = quality(denoiser, samples, meter=meter, keep=kept.__setitem__)
    named = quality(denoiser, samples, meter=meter, task=task)
    names = ("degraded", "restored", "original")
    shown = [images for name, images in kept.items() if name.endswith(SHOWN)]
    sheets = [side_by_side([*images.clamp(0, 1)], names, height=20) for images in shown]
    to_pil(above(sheets, gap=GAP)).save(folder / f"{task}.jpg", quality=78, optimize=True)
    scores = [score["psnr"] for score in (judged.before, judged.after, named.after)]
    return f"| {task} | {' | '.join(f'{score:.2f}' for score in scores)} |"


def demo_sheet(made: Path) -> torch.Tensor:
    """The six photos of `make demo`, a column each: degraded, restored, original."""
    names = sorted(file.stem for file in (made / "photos" / "LQ").glob("*.png"))
    folders = [made / "photos" / "LQ", made / "restored", made / "photos" / "GT"]
    columns = []
    for name in names:
        photos = [fitted(read_rgb(folder / f"{name}.png"), least=1, most=208) for folder in folders]
        columns.append(above([label(name.rpartition("-")[0], 208, 24), *photos], gap=GAP))
    return beside(columns, gap=GAP)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the pictures are written")
    parser.add_argument("--checkpoint", default="universal", help="another model of these tasks")
    parser.add_argument("--demo", type=Path, help="the folder of make demo: its sheet alone")
    options = parser.parse_args(given)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.demo is not None:
        sheet = to_pil(demo_sheet(options.demo))
        sheet.save(options.folder / "demo.jpg", quality=85, optimize=True)
        return 0
    denoiser = load_model(options.checkpoint, "cpu")
    samples = own_photos("universal.yaml")
    print("| task | degraded | restored | task named |\n|---|---|---|---|")
    for index, task in enumerate(known_tasks(denoiser.network)):
        mine = [sample for sample in samples if sample["degradation"] == index]
        print(row(denoiser, task, mine, options.folder), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
