"""``mrdiff preview``, with torch: take samples as training would, report and draw them."""

from __future__ import annotations

import argparse
import time
import warnings
from itertools import islice
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.preview.report import Drawn, oddities, report
from mrdiff.cli.preview.sheet import draw_sheet
from mrdiff.cli.train.run import BuiltRun, build_run
from mrdiff.photo import write_image

__all__ = ["draw", "run_preview"]

_VALIDATION = 4  # samples beside the training ones


def draw(data: Any, loader: DataLoader[Any], role: str, count: int) -> Drawn:
    """The first ``count`` samples of a loader of ``data``, in its sampler's order, one by one.

    No worker is started: what a sample looks like does not depend on them. What training would
    refuse is refused in its words.
    """
    dataset, collate = cast(Any, loader.dataset), cast(Any, loader.collate_fn)
    keys = list(islice(iter(loader.sampler), count))
    dataset[keys[0]]  # what is slow once, such as opening a file, is not timed
    loaded, samples, seconds = [], [], []
    for key in keys:
        start = time.perf_counter()
        loaded.append(dataset[key])
        batch = data.on_after_batch_transfer(collate(loaded[-1:]), 0)
        samples.append({name: values[0] for name, values in batch.items()})
        seconds.append(time.perf_counter() - start)
    if loader.batch_size != 1:
        collate(loaded)
    return Drawn(
        role=role,
        length=len(dataset),
        tasks=tuple(getattr(dataset, "tasks", ())),
        samples=samples,
        seconds=seconds,
    )


def _sets(run: BuiltRun, chosen: str, count: int) -> list[Drawn]:
    """Samples of the sets that were asked for."""
    data: Any = run.datamodule
    data.trainer = run.trainer
    run.trainer.strategy.connect(run.model)
    data.prepare_data()
    data.setup("fit")
    loader: Any = None if chosen == "train" else data.val_dataloader()
    if chosen == "val":
        if not loader:
            message = "--set val: the data has no val set; give data.val in the config"
            raise CommandError(message, status=2)
        return [draw(data, loader, "val", count)]
    drawn = [draw(data, data.train_dataloader(), "train", count)]
    return [*drawn, draw(data, loader, "val", min(count, _VALIDATION))] if loader else drawn


def run_preview(options: argparse.Namespace, arguments: list[str]) -> int:
    """Print what there is to know of the samples and write the sheet; returns the exit status.

    ``options`` are those of the command, ``arguments`` those of the training run, prepared.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="GPU available but not used")
        run = build_run(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as loader workers have
    try:
        drawn = _sets(run, options.set, options.count)
    finally:
        torch.set_num_threads(threads)
    for each in drawn:
        found = [f"  warning: {line}" for line in oddities(each)]
        print(*report(each), *found, sep="\n")
    write_image(options.output, draw_sheet(drawn))
    print(f"drawn {options.output}")
    return 0
