"""The model that comes along, on pairs of others: `mrdiff sample`, the task judged and named.

    python -m benchmarks.bundled --pairs FOLDER [--photos 10] [--tasks rainy hazy ...]

FOLDER has <task>/LQ and <task>/GT, for holes <task>/mask, too. Whole photos by the real command;
the first so many of each folder, all of rainy.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean

from benchmarks.evaluation import SHARED
from mrdiff.cli.common.jobs import Job, find_photos
from mrdiff.cli.common.targets import plan_targets
from mrdiff.cli.sample.table import measure_job
from mrdiff.metrics import LPIPS

TASKS = ("rainy", "hazy", "low-light", "noisy", "snowy", "inpainting")


def restore(
    jobs: Sequence[Job], task: str, mask: Path | None, output: Path
) -> list[dict[str, object]]:
    """Run the command on the photos; its facts of each."""
    command = [sys.executable, "-m", "mrdiff", "sample", *(str(job.source) for job in jobs)]
    command += ["--output", str(output), "--task", task, "--log", str(output / "log.jsonl")]
    command += ["--mask", str(mask)] if mask else []
    subprocess.run(command, check=True, capture_output=True)
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def row(folder: Path, photos: int, lpips: LPIPS | None) -> str:
    """The line of a task."""
    cells, found = [f"{folder.name}"], find_photos(folder / "LQ", reference=folder / "GT")
    found = found if folder.name == "rainy" else found[:photos]
    cells.append(str(len(found)))
    for task in ("auto", folder.name):
        with tempfile.TemporaryDirectory() as scratch:
            jobs = plan_targets(found, Path(scratch))
            mask = folder / "mask" if folder.name == "inpainting" else None
            facts = restore(jobs, task, mask, Path(scratch))
            results = list(map(partial(measure_job, lpips=lpips), jobs))
        if task == "auto":
            cells.append(_means([result.before for result in results]))
            hits = f"{sum(each['task'] == folder.name for each in facts)} of {len(found)}"
        cells.append(_means([result.after for result in results]))
    seconds = mean(float(str(each["seconds"])) for each in facts)
    return f"| {' | '.join([*cells, hits, f'{seconds:.1f}'])} |"


def _means(scores: Sequence[dict[str, float]]) -> str:
    names = [name for name in ("psnr", "lpips") if name in scores[0]]
    digits = {"psnr": 2, "lpips": 3}
    return " / ".join(f"{mean(s[name] for s in scores):.{digits[name]}f}" for name in names)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, default=SHARED / "data" / "paired")
    parser.add_argument("--photos", type=int, default=10, help="of each folder but rainy")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    options = parser.parse_args(given)
    lpips = LPIPS.find()
    print("| task | photos | input | judged | named | judged right | seconds a photo |")
    print("|---|---|---|---|---|---|---|")
    for task in options.tasks:
        print(row(options.pairs / task, options.photos, lpips), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
