"""Is a model that exists worth starting from? A few pairs, a few minutes, with and without it.

    python -m benchmarks.finetuning --checkpoint universal.ckpt [--minutes 3] [--task shadowed]
        [--pairs FOLDER | --photos FOLDER]

A few pairs of a task train, the middle 512 x 512 pixels of the others measure, at NFE 5 with the
sampler `fidelity`. Where there are too few pairs, --photos makes 30, once and for all, from clean
photos by the degradation of the task's own recipe.

`from the model` is finetune.yaml with --init_from, the pairs in a folder of their task's name; `not
named`, for a model of several tasks, leaves the task to its judgement. `from nothing` is the task's
own recipe on the same pairs, with its own learning rate; `the model as it is` has not been tuned.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.evaluation import SHARED, TASKS, pairs_of, quality, train_for
from mrdiff.checkpoints.places import find_model
from mrdiff.checkpoints.reading import load_model
from mrdiff.cli.train.arguments import prepare
from mrdiff.cli.train.run import build_run
from mrdiff.metrics import Meter
from mrdiff.networks.protocol import known_tasks
from mrdiff.photo import write_image


def split(source: Path, root: Path, below: str, *, count: int) -> None:
    """Copy ``count`` pairs, evenly spread, to ``root/train/below``, the others to ``root/test``."""
    for kind in ("LQ", "GT"):
        files = sorted((source / kind).iterdir())
        chosen = {round(i * (len(files) - 1) / (count - 1)) for i in range(count)}
        for index, file in enumerate(files):
            folder = root / ("train" if index in chosen else "test") / below / kind
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder)


def make_pairs(recipe: str, photos: Path, root: Path, *, count: int = 30) -> Path:
    """Degrade photos, evenly spread over a folder, each once; their folder of ``LQ`` and ``GT``."""
    files, clean = sorted(photos.iterdir()), root / "photos" / "test" / "GT"
    clean.mkdir(parents=True)
    for index in range(count):
        shutil.copy(files[round(index * (len(files) - 1) / (count - 1))], clean)
    config = ["--config", recipe, "--config", "photos.yaml", "--data.root", str(root / "photos")]
    data = build_run(prepare([*config, "--data.val.init_args.crop_size", "288"])).datamodule
    data.setup("validate")
    for index in range(count):
        sample = data.sets["val"][index]
        for kind, image in (("LQ", sample["lq"]), ("GT", sample["gt"])):
            write_image(root / "made" / kind / f"{index:02d}.png", image)
    return root / "made"


def _data(root: Path) -> list[str]:
    return ["--data.root", str(root), "--data.batch_size", "10"]


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=find_model, required=True)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--task", default="shadowed", choices=TASKS)
    parser.add_argument("--count", type=int, default=10, help="pairs to train on")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--pairs", type=Path, default=SHARED / "data" / "paired")
    source.add_argument("--photos", type=Path, help="clean ones, to make pairs of")
    options = parser.parse_args(given)
    meter = Meter(("psnr", "ssim", "lpips"))
    recipe = f"{TASKS[options.task]}.yaml"
    with tempfile.TemporaryDirectory() as scratch:
        plain, named = Path(scratch) / "plain", Path(scratch) / "named"
        pairs = options.pairs / options.task
        if options.photos:
            pairs = make_pairs(recipe, options.photos, Path(scratch))
        split(pairs, plain, ".", count=options.count)
        split(pairs, named, options.task, count=options.count)
        samples = pairs_of(plain / "test")
        untuned = load_model(options.checkpoint, "cpu")
        task = options.task if options.task in known_tasks(untuned.network) else None
        tune = ["--config", "finetune.yaml", "--init_from", str(options.checkpoint)]
        ways = {
            "from the model": [*tune, "--config", "task_folders.yaml", *_data(named)],
            "not named": [*tune, *_data(plain)],
            "from nothing": ["--config", recipe, "--config", "paired.yaml", *_data(plain)],
        }
        if task is None:  # a model of one task: nothing to name
            ways["from the model"] = ways.pop("not named")
        print(f"{options.task}: {options.count} pairs to train on, {len(samples)} others\n")
        print("| model | PSNR | gain | SSIM | LPIPS | trained |")
        print("|---|---|---|---|---|---|")
        result = quality(untuned, samples, task=task, meter=meter)
        print(f"| the model as it is | {result.row()} | |", flush=True)
        for way, arguments in ways.items():
            run = train_for(options.minutes, arguments, Path(scratch) / way)
            result = quality(load_model(run.checkpoint, "cpu"), samples, meter=meter)
            print(f"| {way} | {result.row()} | {run.spent} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
