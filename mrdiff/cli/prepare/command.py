"""``mrdiff prepare``: a benchmark's official archive becomes the folders that train.py reads."""

from __future__ import annotations

import argparse
import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from mrdiff.cli.common.errors import command
from mrdiff.cli.common.parser import LineParser, bounded, one_of

__all__ = ["NAMES", "main", "make_parser"]

# datamodules.archives.layouts.BENCHMARKS, spelt out because importing that takes seconds.
NAMES = {
    "gopro": "motion blur: GOPRO_Large.zip",
    "reside-6k": "haze: RESIDE-6K",
    "lol": "low light: LOLdataset.zip",
    "raindrop": "raindrops on the glass: train, test_a, test_b",
    "rain100h": "heavy rain: RainTrainH and Rain100H, or rain_data_*_Heavy",
    "rain100l": "light rain: RainTrainL and Rain100L, or rain_data_*_Light",
    "srd": "shadows: SRD train and test",
    "istd": "shadows: ISTD_Dataset",
    "snow100k": "snow: Snow100K-training and Snow100K-testset",
    "div2k": "clean photos: DIV2K_train_HR and DIV2K_valid_HR",
    "flickr2k": "clean photos: Flickr2K",
    "cbsd68": "clean photos to test on: CBSD68",
    "celeba-hq": "clean faces: CelebAMask-HQ or celeba_hq_256, with RePaint's masks",
}


def _as_gib(text: str) -> float:
    return bounded(text, least=0, most=1e6, rule="must be a number of at least 0")


def make_parser(program: str) -> LineParser:
    """The arguments of the command."""
    names = "\n".join(f"  {name:10} {what}" for name, what in NAMES.items())
    parser = LineParser(
        prog=program,
        description="Unpack a benchmark's archives into OUT/{train,test}/{LQ,GT}, and check them.\n"
        "Clean photos have no LQ: training degrades them as they are read.",
        epilog=f"names:\n{names}\n\nWhere they come from, and their licences: docs/datasets.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", type=one_of("benchmark", tuple(NAMES)), metavar="NAME", help="see below")
    kinds = "zip or tar (gz, bz2, xz), or a folder that it was unpacked to"
    add("archives", type=Path, nargs="+", metavar="ARCHIVE", help=kinds)
    add("out", type=Path, metavar="OUT", help="the folder to make; missing or empty")
    add("--max_gib", type=_as_gib, default=60, metavar="N", help="refuse larger archives (60)")
    return parser


def _archives(module: str) -> Any:
    """Named as text: mrdiff must work without the data package."""
    return importlib.import_module(f"datamodules.archives.{module}")


def _unpack(plan: Any) -> None:
    columns = (TextColumn("unpacking"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("unpacking", total=plan.size)
        _archives("unpack").unpack(plan, advance=partial(progress.advance, task))


def _report(plan: Any, options: argparse.Namespace) -> None:
    """Say what was written, and how to train on it."""
    benchmark, counts = plan.benchmark, plan.counts
    missing = [split for split in ("train", "test") if not counts[split, "GT"]]
    for split in benchmark.splits:
        pairs, photos, masks = (counts[split, role] for role in ("LQ", "GT", "mask"))
        parts = [f"{pairs} pairs" if pairs else f"{photos} clean photos, no LQ"] if photos else []
        parts += [f"{masks} masks"] if masks else []
        if parts:
            print(f"{split}: {', '.join(parts)}")
        elif split in missing:
            print(f"{split}: nothing, its archive was not given", file=sys.stderr)
    if plan.left_out:
        print(f"left out: {plan.left_out} other images")
    print(f"prepared {options.name} -> {options.out}")
    if missing:
        print(f"training reads train and test; {options.name} in docs/datasets.md says how")
        return
    overlay = "paired.yaml" if benchmark.paired else "photos.yaml"
    run = f"--config {benchmark.recipe} --config {overlay} --data.root {options.out}"
    print(f"python train.py {run}")


@command("mrdiff prepare")
def main(arguments: list[str], program: str) -> int:
    """Run the command and return its exit status."""
    options = make_parser(program).parse(arguments)
    limits = _archives("reading").Limits(total=int(options.max_gib * 2**30))
    with Console(stderr=True).status("listing"):
        make_plan = _archives("plan").make_plan
        plan = make_plan(options.name, options.archives, options.out, limits=limits)
    _unpack(plan)
    _report(plan, options)
    return 0
