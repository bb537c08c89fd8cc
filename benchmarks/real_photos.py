"""Real degraded photos by numbers, beside those that our degradations make.

    python -m benchmarks.real_photos [--tasks rainy hazy] [--pairs FOLDER] [--clean FOLDER]
        [--other FOLDER]

A table for each degradation of universal.yaml: the 10th, 50th and 90th percentile of statistics of
real pairs (degraded, clean) and of clean photos under the degradation, and the share of the real
pairs between the 5th and the 95th percentile of ours: where hardly any is, no training has seen the
like. With --other, also what the packages and configs of another folder make.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import yaml

from benchmarks.photo_statistics import STATISTICS, Image, psnr
from benchmarks.turns import HERE, by_packages_of
from mrdiff.photo import read_rgb

DATA = HERE.parent / "shared" / "data"
SEEDS, EVERY, LARGEST = 3, 4, 512  # of the clean photos; side of the middle that is looked at

Pairs: TypeAlias = Iterator[tuple[Image, Image]]
Table: TypeAlias = dict[str, list[float]]


def _middle(image: torch.Tensor) -> Image:
    top, left = (max(0, side - LARGEST) // 2 for side in image.shape[1:])
    return image[:, top : top + LARGEST, left : left + LARGEST].permute(1, 2, 0).double().numpy()


def real_pairs(folder: Path) -> Pairs:
    truths = {path.stem: path for path in (folder / "GT").iterdir()}
    for path in sorted((folder / "LQ").iterdir()):
        yield _middle(read_rgb(path)), _middle(read_rgb(truths[path.stem]))


def made_pairs(kind: Any, clean: Path) -> Pairs:
    """Of a class path, or one with ``init_args``, as in a config."""
    kind = {"class_path": kind} if isinstance(kind, str) else kind
    module, name = kind["class_path"].rsplit(".", 1)
    degradation = getattr(import_module(module), name)(**kind.get("init_args", {}))
    for seed in range(SEEDS):
        for number, path in enumerate(sorted(clean.iterdir())[::EVERY]):
            image, generator = read_rgb(path), torch.Generator().manual_seed(100 * seed + number)
            yield _middle(degradation.degrade(image, generator)), _middle(image)


def collected(task: str, pairs: Pairs) -> Table:
    """Each statistic of all pairs; NaN where a pair lacks it."""
    rows = [{"PSNR, dB": psnr(lq, gt)} | STATISTICS[task](lq, gt) for lq, gt in pairs]
    return {name: [float(r.get(name, np.nan)) for r in rows] for name in max(rows, key=len)}


def made(task: str, clean: Path) -> Table:
    config = yaml.safe_load(Path("configs/universal.yaml").read_text())
    return collected(
        task, made_pairs(config["data"]["degradation"]["init_args"]["kinds"][task], clean)
    )


def made_in(folder: Path, task: str, clean: Path) -> Table:
    """As :func:`made`, by the packages and the config in a folder."""
    options = ["--json", "--clean", str(clean.resolve()), "--tasks", task]
    command, place = by_packages_of(folder, "benchmarks.real_photos", options)
    run = subprocess.run(command, **place, check=True, stdout=subprocess.PIPE)
    found: Table = json.loads(run.stdout)
    return found


def cell(values: list[float]) -> str:
    known = np.array(values)[np.isfinite(values)]
    return (
        " / ".join(f"{v:.3g}" for v in np.quantile(known, [0.1, 0.5, 0.9])) if len(known) else "-"
    )


def inside(real: list[float], ours: list[float]) -> str:
    """The share of the real ones between the 5th and the 95th percentile of ours."""
    low, high = np.nanquantile(ours, [0.05, 0.95])
    values = np.array(real)[np.isfinite(real)]
    return f"{np.mean((values >= low) & (values <= high)):.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, default=DATA / "paired")
    parser.add_argument("--clean", type=Path, default=DATA / "clean" / "val")
    parser.add_argument("--tasks", nargs="+", default=list(STATISTICS), choices=STATISTICS)
    parser.add_argument("--other", type=Path, help="folder of other packages, to be compared")
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.json:
        print(json.dumps(made(options.tasks[0], options.clean)))
        return
    for task in options.tasks:
        real = collected(task, real_pairs(options.pairs / task))
        versions = {"other": made_in(options.other, task, options.clean)} if options.other else {}
        versions["ours"] = made(task, options.clean)
        print(f"\n| {task} | real | {' | inside | '.join(versions)} | inside |")
        print("|---" * (2 + 2 * len(versions)) + "|")
        for name, values in real.items():
            cells = [
                f"{cell(each[name])} | {inside(values, each[name])}" for each in versions.values()
            ]
            print(f"| {name} | {cell(values)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
