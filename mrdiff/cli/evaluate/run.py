"""``mrdiff evaluate``, with torch: plan, restore and measure what is missing, write the tables."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import mrdiff
from mrdiff.acceleration.precision import set_precision, trained_in
from mrdiff.checkpoints.reading import Checkpoint, read_checkpoint
from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.features import PhotoFeatures
from mrdiff.cli.common.models import check_device
from mrdiff.cli.common.tables import aligned
from mrdiff.cli.evaluate.cases import Cases, find_cases
from mrdiff.cli.evaluate.measures import Measures, find_measures
from mrdiff.cli.evaluate.outcome import facts_of_run, gather, write_all
from mrdiff.cli.evaluate.report import cells, unmeasured
from mrdiff.cli.evaluate.runs import plan_runs
from mrdiff.cli.evaluate.settings import (
    digest_of_file,
    digest_of_measures,
    digest_of_model,
    keep_settings,
)
from mrdiff.cli.evaluate.work import Work
from mrdiff.networks.conditions import check_task
from mrdiff.networks.protocol import known_tasks
from mrdiff.official.daclip import ImageController
from mrdiff.restoration.restorer import Restorer
from mrdiff.system.devices import pick_device
from mrdiff.system.text import shown

__all__ = ["run_evaluation"]

# Of a process, by Lightning, torchrun and SLURM; all start at 0.
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


def run_evaluation(options: argparse.Namespace, sets: Mapping[str, Path]) -> int:
    """Run the command with the flags of :mod:`.command` on its folders; 1 if any photo failed."""
    checkpoint, restorer, precision = _open_model(options)
    measures = find_measures(options)
    known = known_tasks(restorer.denoiser.network)
    cases = find_cases(options, sets, known)
    runs, left_out = plan_runs(options, restorer)
    PhotoFeatures().check(restorer, [case.photo.key for case in cases.pairs])
    settings = _settings(options, checkpoint, measures, precision)
    keep_settings(options.output, settings)
    if _is_first(options):
        told = [f"not measured: {measures.words}"] if measures.missing else []
        for line in (*cases.notes, *(f"left out: {shown(line)}" for line in left_out), *told):
            print(line, file=sys.stderr)
    work = Work(restorer, runs, measures.meter, measures.features, options.crop)
    failures = _work(options, work, cases)
    if failures is None:  # the first of several processes goes on alone
        return 0
    failures = {**cases.failures, **failures}
    done = [case for case in cases.pairs if case.name not in failures]
    for name, reason in failures.items():
        print(f"failed: {name}: {shown(reason)}", file=sys.stderr)
    if not done:
        raise CommandError("no photo could be evaluated")
    facts = facts_of_run(options, settings, measures)
    results = gather(options, done, runs, measures, known, facts)
    write_all(options.output, results, done, runs)
    for line in unmeasured(results):
        print(f"note: {line}", file=sys.stderr)
    print("\n".join(aligned(cells(results.mean, results.titles))))
    counts = f"evaluated {len(done)} photos, failed {len(failures)}"
    print(f"{counts} -> {shown(options.output)}")
    return 1 if failures else 0


def _open_model(options: argparse.Namespace) -> tuple[Checkpoint, Restorer, str]:
    """The model as ``mrdiff sample`` would run it, and the precision that it computes in."""
    check_device(options.device)
    try:
        checkpoint = read_checkpoint(options.checkpoint)
        restorer = Restorer.from_checkpoint(
            checkpoint,
            device="cpu" if _processes(options) > 1 else options.device,  # Lightning moves it
            sampler=options.sampler[0] if options.sampler else None,
            seed=options.seed,
            features=ImageController.from_file(options.daclip) if options.daclip else None,
            precision="fp32",
            allow=options.allow_package,
        )
        network, device = restorer.denoiser.network, pick_device(options.device)
        check_task(options.task or "auto", known_tasks(network))
        trained = trained_in(checkpoint)
        precision = set_precision(network, options.precision, trained=trained, device=device)
    except ValueError as error:
        raise CommandError(str(error), status=2) from error
    return checkpoint, restorer, precision


def _processes(options: argparse.Namespace) -> int:
    return int(options.devices * options.num_nodes)


def _is_first(options: argparse.Namespace) -> bool:
    """Whether no launcher says that this process is another than the first of several."""
    return _processes(options) == 1 or all(os.environ.get(name, "0") == "0" for name in _RANKS)


def _settings(
    options: argparse.Namespace, checkpoint: Checkpoint, measures: Measures, precision: str
) -> dict[str, Any]:
    """All that the numbers depend on, but for the sampler and the photo, in plain values."""
    device = pick_device(options.device)
    cuda = device.type == "cuda"
    return {
        "mrdiff": mrdiff.__version__,
        "model": digest_of_model(checkpoint),
        "daclip": digest_of_file(options.daclip),
        "task": options.task or "by folder",
        "seed": options.seed,
        "crop": options.crop,
        "protocol": options.protocol,
        "metrics": sorted(measures.names),
        "backbone": measures.backbone,
        "weights of metrics": digest_of_measures(measures),
        "precision": precision,
        "device": torch.cuda.get_device_name(device) if cuda else device.type.upper(),
    }


def _work(options: argparse.Namespace, work: Work, cases: Cases) -> dict[str, str] | None:
    """Restore and measure what is not kept yet, in this process or in several."""
    todo = [case for case in cases.pairs if not work.is_done(case)]
    if not todo:
        return {} if _is_first(options) else None
    if _is_first(options) and (done := len(cases.pairs) - len(todo)):
        print(f"{done} of {len(cases.pairs)} photos are done already", file=sys.stderr)
    try:
        if _processes(options) == 1:
            return work(todo)
        from mrdiff.cli.common.processes import spread_out  # Lightning: seconds

        model, devices, nodes = work.restorer.denoiser, options.devices, options.num_nodes
        parts = spread_out(model, todo, work, device=options.device, devices=devices, nodes=nodes)
        return None if parts is None else {k: v for part in parts for k, v in part.items()}
    except KeyboardInterrupt:
        kept = sum(map(work.is_done, cases.pairs))
        said = f"{kept} of {len(cases.pairs)} photos are done: the same command goes on from there"
        print(said, file=sys.stderr)
        raise
