"""One model for ten tasks: is the task recognised, and what does each task gain?

    python -m benchmarks.universal [--minutes 40] [--checkpoint FILE] [--pairs FOLDER]

Trains universal.yaml by the real command, or takes a checkpoint of it. At NFE 5 with the sampler
`fidelity`, per task, once judging the task and once given it: (i) the recipe's validation photos,
real ones under its own degradations; (ii) real or benchmark pairs, if they are there, the middle
512 x 512 pixels of each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.evaluation import SHARED, own_photos, pairs_of, quality, train_for
from datamodules import Sample
from mrdiff.checkpoints.reading import load_model
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.metrics import LPIPS
from mrdiff.networks.conditions import judge
from mrdiff.networks.protocol import known_tasks


@torch.no_grad()
def verdicts(denoiser: Denoiser, samples: list[Sample]) -> list[str]:
    """What the classifier says of each sample."""
    tasks = known_tasks(denoiser.network)
    judged = [judge(denoiser.network, sample["lq"][None])[0] for sample in samples]
    return [tasks[int(row.argmax())] for row in judged]


def rows(
    denoiser: Denoiser, task: str, samples: list[Sample], where: str, lpips: LPIPS | None
) -> tuple[int, list[str]]:
    """How many samples were recognised, and the lines of the table."""
    said = verdicts(denoiser, samples)
    right = sum(name == task for name in said)
    wrong = sorted({name for name in said if name != task})
    lines = []
    for given in (None, task):
        result = quality(denoiser, samples, task=given, lpips=lpips)
        mistaken = f" ({', '.join(wrong)})" if wrong else ""
        how = "given" if given else f"{right}/{len(samples)}{mistaken}"
        lines.append(f"| {task} | {where} | {len(samples)} | {how} | {result.row()} |")
    return right, lines


def table(denoiser: Denoiser, pairs: Path, lpips: LPIPS | None) -> None:
    """Print the table and the classifier's accuracy."""
    tasks = known_tasks(denoiser.network)
    own = own_photos("universal.yaml")
    print(
        "| task | measured on | images | task judged right, or given | PSNR | gain | SSIM | LPIPS |"
    )
    print("|---|---|---|---|---|---|---|---|")
    counts = {"(i)": [0, 0], "(ii)": [0, 0]}
    for index, task in enumerate(tasks):
        mine = [sample for sample in own if sample["degradation"] == index]
        for where, samples in (("(i)", mine), ("(ii)", pairs_of(pairs / task))):
            if not samples:
                continue
            right, lines = rows(denoiser, task, samples, where, lpips)
            counts[where][0] += right
            counts[where][1] += len(samples)
            print("\n".join(lines), flush=True)
    for where, (right, total) in counts.items():
        if total:
            print(f"\naccuracy of the classifier on {where}: {right}/{total} = {right / total:.1%}")


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--checkpoint", type=Path, help="instead of training")
    parser.add_argument("--pairs", type=Path, default=SHARED / "data" / "paired")
    parser.add_argument("--keep", type=Path, help="folder for the checkpoint")
    options = parser.parse_args(given)
    lpips = LPIPS.find()
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = options.checkpoint
        if checkpoint is None:
            folder = options.keep or Path(scratch)
            run = train_for(options.minutes, ["--config", "universal.yaml"], folder)
            print(f"trained {run.steps} steps in {run.minutes:.1f} minutes\n")
            checkpoint = run.checkpoint
        table(load_model(checkpoint, "cpu"), options.pairs, lpips)
    return 0


if __name__ == "__main__":
    sys.exit(main())
