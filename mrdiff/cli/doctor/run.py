"""``mrdiff doctor``: the order of the checks, and what is said of them."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from mrdiff.cli.common.errors import is_expected, one_line
from mrdiff.cli.doctor.duplicates import check_duplicates
from mrdiff.cli.doctor.files import (
    Folder,
    check_folder,
    check_pictures,
    check_set,
    find_folders,
    summary,
)
from mrdiff.cli.doctor.findings import Report, counted, error, size, span
from mrdiff.cli.doctor.machine import check_caches, check_device, check_disk, device_line
from mrdiff.cli.doctor.restoration import (
    Restored,
    Settings,
    find_settings,
    largest_image,
    restore_largest,
)
from mrdiff.cli.doctor.scan import Picture, scan
from mrdiff.cli.doctor.trial import Trial, check_memory, check_trial, out_of_memory, run_trial
from mrdiff.cli.train.run import BuiltRun, build_run
from mrdiff.networks.protocol import image_channels
from mrdiff.system.memory import is_out_of_memory

Folders = Sequence[Folder]
Pictures = Mapping[Path, Picture]

# Several devices are not needed to try a step, and would start this command once each.
_ONE_DEVICE = ("--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto")


def _build(report: Report, arguments: list[str]) -> tuple[BuiltRun, BuiltRun] | None:
    """The run, and the same on one device for the trial; None if there is an error."""
    report.section("Configuration")
    try:
        run = build_run(arguments)
        tried = run if run.trainer.world_size == 1 else build_run([*arguments, *_ONE_DEVICE])
        tried.before_fit()  # --init_from
    except Exception as failure:
        if os.environ.get("MRDIFF_DEBUG") == "1":
            raise
        kind = "" if is_expected(failure) else f"{type(failure).__name__}: "
        cure = "correct the key in the config or on the command line; mrdiff train fit --help lists"
        report.add([error(f"{kind}{one_line(failure)}", f"{cure} every key")])
        return None
    model: Any = run.model
    millions = sum(p.numel() for p in model.network.parameters()) / 1e6
    process = f"{model.parameterization.name} parameterization"
    report.good(f"{type(model.network).__name__} of {millions:.2f} million parameters, {process}")
    channels = image_channels(model.network)
    if channels != 3:
        what = f"model.network takes {counted(channels, 'channel')}, but the data gives 3 (RGB)"
        cure = "set model.network.init_args.channels to 3; grey images are read as RGB"
        report.add([error(what, cure)])
    return run, tried


def _files(report: Report, sets: Mapping[str, Any], *, quick: bool) -> tuple[Folders, Pictures]:
    """Check the files of all sets; returns the folders, and their pictures by path."""
    report.section("Files" + (" (headers alone)" if quick else ""))
    folders, findings = find_folders(sets)
    report.add(findings)
    paths = list(dict.fromkeys(path for folder in folders for path in folder.paths()))
    looked = scan(paths, quick=quick)
    console = Console(stderr=True)
    progress = track(looked, "reading images", len(paths), console=console, transient=True)
    pictures = {picture.path: picture for picture in progress}
    for folder in folders:
        findings = [*check_folder(folder), *check_pictures(folder, pictures)]
        report.add(findings)
        if not any(finding.level == "error" for finding in findings):
            report.good(summary(folder, pictures))
    for role, dataset in sets.items():
        findings = [] if report.errors else check_set(role, dataset.check)
        report.add(findings)
        if not findings and not any(role in folder.roles for folder in folders):
            report.note(f"{role}: {type(dataset).__name__} makes its pictures, it has no files")
    return folders, pictures


def _duplicates(report: Report, folders: Folders, pictures: Pictures, *, quick: bool) -> None:
    report.section("Duplicates")
    if quick:
        report.note("not looked for: --quick reads no pixels")
        return
    findings, ours, others = check_duplicates(folders, pictures)
    compared = f"{counted(ours, 'training image')} and {others:,} of validation and test compared"
    if ours and others:
        report.add(findings, otherwise=f"none: {compared}")
    else:
        report.add(findings)
        report.note("no comparison: training, or validation and test, have no files to read")


def _machine(report: Report, run: BuiltRun, sets: Mapping[str, Any]) -> None:
    report.section("Machine")
    data: Any = run.datamodule
    workers = data.num_workers
    report.good(device_line(run.trainer))
    report.add([*check_device(run.trainer, 1 if workers == "auto" else workers)])
    findings, good = check_disk(run.model, run.trainer)
    report.add(findings)
    for line in good:
        report.good(line)
    report.add([*check_caches([*sets.values()])])


def _steps(report: Report, run: BuiltRun) -> Trial:
    """Try some steps, quietly."""
    data: Any = run.datamodule
    report.section(f"Training step (data.batch_size {data.batch_size})")
    known = report.errors
    trial = run_trial(run)
    failure = trial.failure
    if failure is not None and known and is_expected(failure):
        report.note("not tried: training does not start before the errors above are mended")
        return trial
    report.add([*check_trial(run, trial), *check_memory(run, trial)])
    if trial.failure is None and trial.losses:
        low, high = min(trial.gradients, default=0.0), max(trial.gradients, default=0.0)
        report.good(
            f"{counted(len(trial.losses), 'batch', 'batches')}: loss {trial.losses[0]:.3g} to "
            f"{trial.losses[-1]:.3g}, length of the gradient {low:.3g} to {high:.3g}"
        )
        report.good(f"{trial.waiting:.0%} of the time was waiting for data")
    if data.sets["test"] is not None and not report.errors:  # the others were tried by the steps
        report.add(check_set("test", partial(data.try_out, "test")))
    return trial


def _restoration(
    report: Report, run: BuiltRun, folders: Folders, pictures: Pictures, settings: Settings | None
) -> Restored | None:
    report.section("Largest validation image")
    data: Any = run.datamodule
    dataset = data.sets["val"]
    if dataset is None:
        report.note("there is no validation set")
        return None
    cure = "smaller crops: --data.val.init_args.crop_size, and crop of callbacks.SamplingValidation"
    known, where = report.errors, "restoring the largest validation image"
    try:
        name, lq = largest_image(dataset, folders, pictures)
        where = f"{where}, {name} of {lq.shape[-1]}x{lq.shape[-2]}"
        restored = restore_largest(run, name, lq, settings)
    except Exception as failure:
        if is_out_of_memory(failure):
            report.add([out_of_memory(where, cure, failure)])
        elif known and is_expected(failure):
            report.note("not tried: the validation images cannot be read")
        else:
            text = f"{where} failed: {type(failure).__name__}: {one_line(failure)}"
            report.add([error(text, "correct the network, or the validation set")])
        return None
    memory = "" if restored.memory is None else f", {size(restored.memory)} at most"
    report.good(
        f"{restored.name}, {restored.width}x{restored.height}, {restored.sampler} with NFE "
        f"{restored.nfe}: {span(restored.seconds)}{memory}"
    )
    return restored


def _summarize(report: Report, trial: Trial, restored: Restored | None) -> None:
    report.section("Summary")
    if trial.failure is None and trial.losses:
        peaks = [trial.memory or 0, (restored.memory or 0) if restored else 0]
        validation = restored.validation if restored else 0.0
        report.value("peak memory", size(max(peaks)) if max(peaks) else "unknown")
        report.value("time per step", span(trial.seconds))
        if restored is not None:
            known = math.isfinite(trial.validations)
            times = f", {trial.validations:,.0f} times" if known else ""
            report.value("each validation", f"about {span(validation)}{times}")
        report.value("estimated time", _estimate(trial, validation))
    warned = counted(len(report.findings) - report.errors, "warning")
    report.value("found", f"{counted(report.errors, 'error')}, {warned}")


def _estimate(trial: Trial, validation: float) -> str:
    """How long the run will take."""
    if trial.budget is not None:
        whole = trial.budget.seconds
        left = max(whole / 2, whole - trial.validations * validation)  # else it validates less
        return f"{whole / 60:g} minutes, as set: about {left / trial.seconds:,.0f} steps"
    if not math.isfinite(trial.steps):
        return "unknown: the run has no end (trainer.max_steps)"
    seconds = trial.steps * trial.seconds
    times = trial.validations if math.isfinite(trial.validations) else 0
    total = (seconds + times * validation) / 3600
    share = f"validation {times * validation / 3600:.2g} of them" if times else "no validation"
    hours = f"{total:,.0f}" if total >= 100 else f"{total:.2g}"
    return f"{hours} hours for {trial.steps:,.0f} steps, {share}"


def run_doctor(arguments: list[str], *, quick: bool) -> int:
    """Check the run of ``mrdiff train`` with these arguments; 1 if there is an error, else 0."""
    report = Report(Console())
    # Lightning tells of what it starts, and warns of what is meant here: no logger, few steps.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = _build(report, arguments)
        if runs is not None:
            _check(report, *runs, quick=quick)
        else:
            report.section("Summary")
            report.value("found", f"{counted(report.errors, 'error')}, nothing else was checked")
    return 1 if report.errors else 0


def _check(report: Report, run: BuiltRun, tried: BuiltRun, *, quick: bool) -> None:
    """All checks of a run that can be built."""
    data: Any = run.datamodule
    sets = {role: dataset for role, dataset in data.sets.items() if dataset is not None}
    folders, pictures = _files(report, sets, quick=quick)
    _duplicates(report, folders, pictures, quick=quick)
    _machine(report, run, sets)
    settings = find_settings(tried.trainer)
    trial = _steps(report, tried)
    if run.trainer.max_steps < 0:  # epochs are shorter for several devices
        trial.steps /= run.trainer.world_size
    restored = None
    if trial.failure is None or is_out_of_memory(trial.failure):
        restored = _restoration(report, tried, folders, pictures, settings)
    _summarize(report, trial, restored)
