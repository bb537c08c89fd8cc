"""The recipes beside what others would do: as many minutes on the same machine, the same data.

    python -m benchmarks.peers [--minutes 4] [--seeds 0 1] [--tasks derain denoise lowlight]
        [--methods ours regression ...] [--pairs FOLDER] [--photos 12] [--keep FOLDER]

For each task the recipe's synthetic data is what all learn from, and the clock ends each run, with
imports and validation outside it. The networks have about as many parameters:

* ``ours``: the recipe, with its sampler at 5 calls and at that of 1, 2, 3, 5, 10 which has the
  best PSNR on the recipe's own photos; and mr-ode-2, which draws from the distribution.
* ``regression``: the same network, loss and optimizer without diffusion: from the degraded to the
  clean image in one call. What diffusion has to pay for.
* ``irsde``: IR-SDE (Luo et al. 2023): its process, noise prediction, loss and optimizer, restored
  as by its authors in 100 steps, and by mr-ode-2. Its network is twenty times as large, too large
  for minutes on two cores: so it has the recipe's. Its rate of 1e-4 is meant for days: ``irsde+``
  has the recipe's optimizer instead.
* ``diffusers``: a DDPM conditioned on the degraded image (:mod:`benchmarks.peers_diffusers`) of the
  library diffusers; ``pip install diffusers``.

denoising-diffusion-pytorch (2.3.4) and deepinv (0.5.0) are not run: both import torchvision, which
this project does without.

Measured are the middle 256 x 256 pixels of the recipe's own validation photos and of pairs of
others in <pairs>/<rainy, noisy, low-light>, if they are there: PSNR, LPIPS if its weights are
there, and the sliced Wasserstein distance of patches (SW, times 100). Runs in the folder of --keep
are neither trained nor measured again; ``--train TASK METHOD SEED`` makes only that one, so that
several processes can share the work, one on each core.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers_methods
from benchmarks.evaluation import ROOT, SHARED, TASKS, own_photos, pairs_of
from datamodules import Sample
from mrdiff.metrics import Meter
from mrdiff.system.files import appearing, write_text

METHODS = (*peers_methods.SAMPLED, "diffusers")
FOLDERS = {recipe: folder for folder, recipe in TASKS.items()}
METRICS = ("psnr", "lpips", "sw")
_DIGITS = {"psnr": 2, "lpips": 3, "sw": 2}
_SIDE = 256  # pixels: a hundred calls a photo, of several methods, are to take minutes

Row = dict[str, Any]


def photos(task: str, options: argparse.Namespace) -> dict[str, list[Sample]]:
    """The sets on which a task is measured, those that are here."""
    own, pairs = own_photos(f"{task}.yaml"), pairs_of(options.pairs / FOLDERS[task])
    sets = {"pairs": pairs[: options.photos], "own": own[: options.photos]}
    return {name: [middle(sample) for sample in some] for name, some in sets.items() if some}


def middle(sample: Sample) -> Sample:
    """The same with the middle of its images alone."""
    height, width = sample["lq"].shape[-2:]
    top, left = max(0, height - _SIDE) // 2, max(0, width - _SIDE) // 2
    lq, gt = (sample[key][:, top:, left:][:, :_SIDE, :_SIDE] for key in ("lq", "gt"))
    return Sample(lq=lq.contiguous(), gt=gt.contiguous(), name=sample["name"])


def scores(samples: Sequence[Sample], restore: Callable[[Sample], Tensor]) -> Row:
    """Means of the metrics, and the median of the seconds a photo."""
    meter, found, seconds = Meter(METRICS), [], []
    for sample in samples:
        began = time.perf_counter()
        image = restore(sample)
        seconds.append(time.perf_counter() - began)
        found.append(meter(image, sample["gt"][None]))
    means = {name: statistics.mean(float(row[name]) for row in found) for name in meter.names}
    means["sw"] *= 100
    return {**means, "photos": len(samples), "seconds": statistics.median(seconds)}


def make(task: str, method: str, seed: int, folder: Path, options: argparse.Namespace) -> None:
    """Train a run and measure it, what of both is not in the folder yet."""
    train: Callable[[str, int, float, Path], int] = partial(peers_methods.train, method)
    restorers: Callable[[Path], peers_methods.Restorers] = partial(peers_methods.restorers, method)
    if method == "diffusers":
        from benchmarks import peers_diffusers

        train, restorers = peers_diffusers.train, peers_diffusers.restorers
    model, results = folder / "model", folder / f"measured-{options.photos}.json"
    if not model.exists():
        with appearing(model) as writing:
            steps = train(task, seed, options.minutes, writing)
            write_text(writing / "steps.json", json.dumps(steps))
    if results.exists():
        return
    steps, rows = json.loads((model / "steps.json").read_text()), []
    sets = photos(task, options)
    with torch.inference_mode():
        size, runs = restorers(model)
        next(iter(runs.values()))(next(iter(sets.values()))[0])  # warm up
        for name, samples in sets.items():
            for (sampler, nfe), restore in runs.items():
                row = {"set": name, "sampler": sampler, "nfe": nfe, "steps": steps, "size": size}
                rows.append(row | scores(samples, restore))
    write_text(results, json.dumps(rows, indent=1))


def collected(task: str, method: str, folder: Path, options: argparse.Namespace) -> list[Row]:
    """The rows of a method: each number a list, one a seed; made now if they are not there."""
    runs: list[list[Row]] = []
    for seed in options.seeds:
        run = folder / f"{task}-{method}-{seed}-{options.minutes:g}min"
        results = run / f"measured-{options.photos}.json"
        if not results.exists():
            print(f"{task} {method} {seed} ...", file=sys.stderr, flush=True)
            command = [*(sys.executable, "-m", "benchmarks.peers"), "--keep", str(folder)]
            command += ["--train", task, method, str(seed), "--minutes", str(options.minutes)]
            command += ["--photos", str(options.photos), "--pairs", str(options.pairs)]
            subprocess.run(command, cwd=ROOT, check=True)
        runs.append(json.loads(results.read_text()))
    return [
        {key: [row[key] for row in rows] for key in rows[0]} for rows in zip(*runs, strict=True)
    ]


def shown(method: str, rows: list[Row]) -> list[Row]:
    """Those that the table has: of ours, the best NFE by the own photos' PSNR, and 5."""
    if method != "ours":
        return rows

    def chosen(row: Row) -> bool:
        return row["set"][0] == "own" and row["sampler"][0] == "fidelity"

    best = max(filter(chosen, rows), key=lambda row: statistics.mean(row["psnr"]))["nfe"][0]
    return [row for row in rows if row["sampler"][0] != "fidelity" or row["nfe"][0] in (best, 5)]


def cell(values: Sequence[float], digits: int, sign: str = "") -> str:
    """The mean, and half of the range where there are several seeds."""
    spread = (max(values) - min(values)) / 2
    text = f"{statistics.mean(values):{sign}.{digits}f}"
    return f"{text} ± {spread:.{digits}f}" if len(values) > 1 else text


def line(task: str, method: str, row: Row) -> str:
    """A row of the table."""
    cells = [task, method, row["sampler"][0], str(row["nfe"][0])]
    cells += [cell(row[key], _DIGITS[key]) if key in row else "" for key in METRICS]
    cells.append(f"{statistics.mean(row['seconds']):.2f}")
    cells.append(f"{row['size'][0] / 1e6:.2f}" if "size" in row else "")
    cells.append(f"{statistics.mean(row['steps']):.0f}" if "steps" in row else "")
    return f"| {' | '.join(cells)} |"


def against(task: str, ours: Sequence[Row], regression: Row) -> list[str]:
    """A row of a table for each of ours on the same photos: its numbers less the regression's.

    Seed by seed, so that the spread is that of the difference.
    """
    lines = []
    for row in ours:
        if row["set"] == regression["set"]:
            cells = [task, row["set"][0], row["sampler"][0], str(row["nfe"][0])]
            for key in METRICS:
                more = [
                    a - b for a, b in zip(row.get(key, []), regression.get(key, []), strict=True)
                ]
                cells.append(cell(more, _DIGITS[key], "+") if more else "")
            times = statistics.mean(row["seconds"]) / statistics.mean(regression["seconds"])
            lines.append(f"| {' | '.join([*cells, f'{times:.1f}'])} |")
    return lines


def tables(folder: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    """The lines of each set's table, and of that of ours against the regression."""
    lines: dict[str, list[str]] = {"pairs": [], "own": [], "against": []}
    for task in options.tasks:
        for name, samples in photos(task, options).items():
            before = scores(samples, lambda sample: sample["lq"][None])
            row = {key: [value] for key, value in before.items()}
            row |= {"sampler": [""], "nfe": [0]}
            lines[name].append(line(task, f"input ({len(samples)} photos)", row))
        found = {
            method: shown(method, collected(task, method, folder, options))
            for method in options.methods
        }
        for method, rows in found.items():
            for row in rows:
                lines[row["set"][0]].append(line(task, method, row))
        for row in found.get("regression", []):
            lines["against"] += against(task, found.get("ours", []), row)
    return lines


def _absolute(path: str) -> Path:  # the commands run in the project's folder
    return Path(path).absolute()


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--tasks", nargs="+", default=["derain", "denoise", "lowlight"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--pairs", type=_absolute, default=SHARED / "data" / "paired")
    parser.add_argument("--photos", type=int, default=12, help="of each set, at most")
    parser.add_argument("--keep", type=_absolute, help="folder for the runs")
    parser.add_argument("--train", nargs=3, metavar=("TASK", "METHOD", "SEED"))
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    if options.train:
        task, method, seed = options.train
        folder = options.keep / f"{task}-{method}-{seed}-{options.minutes:g}min"
        folder.mkdir(parents=True, exist_ok=True)
        make(task, method, int(seed), folder, options)
        return 0
    missing = "diffusers" in options.methods and not importlib.util.find_spec("diffusers")
    if missing:
        options.methods.remove("diffusers")
    with tempfile.TemporaryDirectory() as scratch:
        found = tables(options.keep or Path(scratch), options)
    print(f"{options.minutes:g} minutes of training each on {torch.get_num_threads()} threads.")
    if missing:
        print("diffusers is left out, as it is not installed: `pip install diffusers`.")
    head = ["task", "method", "sampler", "NFE", "PSNR", "LPIPS", "SW", "seconds a photo"]
    more = ["task", "photos", "sampler", "NFE", "PSNR", "LPIPS", "SW", "times as slow"]
    heads = {
        "pairs": ("Pairs of others", [*head, "million parameters", "steps"]),
        "own": ("The recipes' own photos", [*head, "million parameters", "steps"]),
        "against": ("Ours less the regression", more),
    }
    for name, lines in found.items():
        title, columns = heads[name]
        if lines:
            row = f"| {' | '.join(columns)} |"
            print("", f"## {title}", "", row, "|---" * len(columns) + "|", *lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
