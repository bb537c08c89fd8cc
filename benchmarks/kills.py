"""A training that is killed again and again, and resumed; see ``faults``."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.datasets.demo import write_demo
from datamodules.degradations import Noise

ROOT = Path(__file__).parents[1]
_STEPS = 60  # between validations
_RECIPE = """
base: base.yaml
model:
  network:
    class_path: mrdiff.networks.UNet
    init_args: {{widths: [24, 48], encoder: [1], middle: 2, decoder: [1]}}
data:
  batch_size: 2
  num_workers: 1
  train:
    class_path: datamodules.CleanFolder
    init_args: {{path: photos/GT, degradation: datamodules.degradations.Noise, patch_size: 24}}
  val:
    class_path: datamodules.PairedFolder
    init_args: {{lq: photos/LQ, gt: photos/GT, crop_size: 32}}
trainer:
  accelerator: cpu
  max_steps: 100000
  logger: {{init_args: {{name: tiny}}}}
  val_check_interval: {steps}
  num_sanity_val_steps: 0
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - {{class_path: callbacks.EMA, init_args: {{decay: 0.99}}}}
    - {{class_path: callbacks.SamplingValidation, init_args: {{samplers: [fidelity], nfes: [1]}}}}
    - {{class_path: callbacks.FiniteLoss}}
    - {{class_path: callbacks.SaveLast, init_args: {{minutes: {minutes}}}}}
    - {{class_path: benchmarks.kills.Trace, init_args: {{path: {trace}, until: {until}}}}}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{monitor: val/psnr@1, mode: max, filename: best}}
"""


class Trace(Callback):
    """Writes each step and a hash of all weights behind it; ends the run after step ``until``."""

    def __init__(self, path: str, until: int) -> None:
        self.path, self.until = path, until

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        digest = hashlib.sha1(usedforsecurity=False)
        for value in pl_module.parameters():
            digest.update(value.detach().numpy().tobytes())
        with open(self.path, "a", encoding="ascii") as file:
            file.write(f"{trainer.global_step} {digest.hexdigest()}\n")
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.until


def read_trace(path: Path) -> dict[int, str]:
    """The hash of every step whose line is whole."""
    lines = path.read_text(encoding="ascii").splitlines(keepends=True) if path.exists() else []
    return {int(step): digest for step, digest in (x.split() for x in lines if x.endswith("\n"))}


@dataclass(frozen=True)
class Segment:
    """What one training made before it was killed, and what was left of it."""

    steps: Mapping[int, str]
    within_save: bool  # whether a checkpoint was being written
    saved: int | None  # the step of last.ckpt; None: there was none
    due: bool  # whether the first interval was over, so that there must be one


class Run:
    """The training of one folder, which can be started, killed and resumed."""

    def __init__(self, folder: Path, *, interval: float = 2.0) -> None:
        self.folder, self.interval = folder, interval
        write_demo(folder / "photos", degradation=Noise(), size=64)
        self.checkpoints = folder / "runs/tiny/version_0/checkpoints"
        self.count = 0

    def start(self, *, until: int = 10**6, scratch: Path | None = None) -> tuple[Any, Path]:
        """Start or resume it; returns the process and the file of its steps."""
        self.count += 1
        trace, recipe = self.folder / f"trace{self.count}", self.folder / "tiny.yaml"
        minutes = self.interval / 60
        text = _RECIPE.format(steps=_STEPS, minutes=minutes, trace=trace, until=until)
        recipe.write_text(text, encoding="utf-8")
        resume = ["--ckpt_path", "last"] if (self.checkpoints / "last.ckpt").exists() else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        if scratch is not None:
            environment["TMPDIR"] = str(scratch)
        command = [sys.executable, "-m", "mrdiff", "train", "--config", str(recipe), *resume]
        with (self.folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log
            )
        return process, trace

    def killed(self, *, after: float, in_save: bool, scratch: Path | None) -> Segment:
        """Train for ``after`` seconds and kill it, or at the next writing of a checkpoint."""
        process, trace = self.start(scratch=scratch)
        while not trace.exists():
            if process.poll() is not None:
                log = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"the training ended before its first step:\n{log[-2000:]}")
            time.sleep(0.01)
        begin = time.monotonic()
        time.sleep(after)
        while in_save and not self._writing() and time.monotonic() - begin < after + 20:
            pass  # a few milliseconds decide
        process.send_signal(signal.SIGKILL)
        process.wait()
        due = time.monotonic() - begin > 1.5 * self.interval
        return Segment(read_trace(trace), self._writing(), self._saved(), due)

    def _writing(self) -> bool:
        return any(self.checkpoints.glob(".mrdiff.*"))

    def _saved(self) -> int | None:
        path = self.checkpoints / "last.ckpt"
        if not path.exists():
            return None
        content = torch.load(path, weights_only=True, map_location="cpu")  # raises if it is torn
        return int(content["global_step"])


def _is_part(steps: Mapping[int, str], first: int, *, whole: Mapping[int, str]) -> bool:
    """Whether a training began with the step ``first`` and has the bits of the ``whole`` one."""
    same = all(whole.get(step) == digest for step, digest in steps.items())
    return same and min(steps, default=0) == first


@dataclass(frozen=True)
class Report:
    """Counts over all kills."""

    kills: int
    within_save: int
    other_file_system: int  # of TMPDIR
    equal: int  # resumed trainings whose every step has the bits of the undisturbed one
    steps: int  # that were compared
    due: int  # kills after the first interval
    missing: int  # of those, without a checkpoint
    left: int  # temporary files after the last, undisturbed end

    @property
    def good(self) -> bool:
        return self.equal == self.kills and not self.missing and not self.left


def kill_and_compare(folder: Path, *, kills: int, seed: int = 0) -> Report:
    """Kill and resume one training, run it again undisturbed, and compare all steps."""
    draw, run, other = random.Random(seed), Run(folder / "killed"), Path("/dev/shm")
    segments, elsewhere = [], 0
    for index in range(kills):
        scratch = other if index % 2 and other.is_dir() else None
        elsewhere += scratch is not None
        after = draw.uniform(0, 5)
        segments.append(run.killed(after=after, in_save=index % 4 >= 2, scratch=scratch))
    last = max(max(segment.steps, default=0) for segment in segments) + _STEPS
    process, trace = run.start(until=last)
    process.wait()
    resumed = [*(segment.steps for segment in segments[1:]), read_trace(trace)]
    begun = [(segment.saved or 0) + 1 for segment in segments]
    process, trace = Run(folder / "whole").start(until=last)
    process.wait()
    whole = read_trace(trace)
    due = [segment for segment in segments if segment.due]
    return Report(
        kills=kills,
        within_save=sum(segment.within_save for segment in segments),
        other_file_system=elsewhere,
        equal=sum(map(partial(_is_part, whole=whole), resumed, begun)),
        steps=sum(map(len, resumed)),
        due=len(due),
        missing=sum(segment.saved is None for segment in due),
        left=len(list(run.checkpoints.glob(".mrdiff.*"))),
    )
