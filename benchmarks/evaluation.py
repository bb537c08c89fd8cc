"""What the benchmarks of the tasks share: timed runs of the real command, quality of a model."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from datamodules import PairedFolder, Sample
from mrdiff.cli.train.arguments import prepare
from mrdiff.cli.train.run import build_run
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.wrappers import BoundDenoiser
from mrdiff.metrics import Meter
from mrdiff.networks.conditions import make_context
from mrdiff.solvers.noise import named_noise
from mrdiff.solvers.presets import make_sampler
from mrdiff.solvers.run import Sampler

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
_LARGEST = 512  # side in pixels at which pairs are measured

# The names of the folders of pairs, in the order of the universal model, and the recipe of each.
TASKS = {
    "motion-blurry": "deblur",
    "hazy": "dehaze",
    "jpeg-compressed": "dejpeg",
    "low-light": "lowlight",
    "noisy": "denoise",
    "raindrop": "deraindrop",
    "rainy": "derain",
    "shadowed": "deshadow",
    "snowy": "desnow",
    "inpainting": "inpaint",
}


@dataclass(frozen=True)
class Quality:
    """Means over images of PSNR (dB), SSIM and, if its weights are here, LPIPS."""

    before: dict[str, float]
    after: dict[str, float]
    images: int

    def row(self) -> str:
        """Cells of a Markdown table, degraded -> restored, and the gain in dB."""
        cells = [f"{self.before['psnr']:.2f} -> {self.after['psnr']:.2f}"]
        cells.append(f"{self.after['psnr'] - self.before['psnr']:+.2f}")
        cells += [
            f"{self.before[key]:.3f} -> {self.after[key]:.3f}"
            for key in ("ssim", "lpips")
            if key in self.before
        ]
        return " | ".join(cells)


class Trained(NamedTuple):
    """A run that has ended: its last checkpoint, its steps and its minutes of training alone."""

    checkpoint: Path
    steps: int
    minutes: float

    @property
    def spent(self) -> str:
        """Steps and minutes, as a cell of a table."""
        return f"{self.steps} steps, {self.minutes:.1f} min"


def train_for(minutes: float, arguments: Sequence[str], folder: Path) -> Trained:
    """Train by the real command for about so many minutes, without imports and validation.

    A short run first tells how many steps that is, so that the learning rate comes to its end.

    Args:
        minutes: of training.
        arguments: of ``train.py``.
        folder: where logs and checkpoints are written.
    """
    return train_steps(steps_in(minutes, arguments), arguments, folder)


def steps_in(minutes: float, arguments: Sequence[str]) -> int:
    """How many steps of such a run take about so many minutes, by a short run."""
    with tempfile.TemporaryDirectory() as scratch:
        trial = _train([*arguments], Path(scratch), steps=260)
        return max(1, round(60 * minutes * _steps_per_second(trial)))


def train_steps(steps: int, arguments: Sequence[str], folder: Path) -> Trained:
    """Train by the real command for so many steps, which no other load on the machine changes.

    Args:
        steps: of the optimiser; 20 or more, or nothing is logged.
        arguments: of ``train.py``.
        folder: where logs and checkpoints are written.
    """
    return _trained(_train(arguments, folder, steps=steps))


def trained_before(folder: Path) -> Trained | None:
    """The run of an earlier :func:`train_for` or :func:`train_steps` that ended in a folder."""
    checkpoints = list(folder.glob("*/run/checkpoints/last.ckpt"))
    return _trained(checkpoints[0].parents[1]) if checkpoints else None


def _trained(run: Path) -> Trained:
    steps = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"]
    return Trained(run / "checkpoints" / "last.ckpt", steps, steps / _steps_per_second(run) / 60)


def _train(arguments: Sequence[str], folder: Path, *, steps: int) -> Path:
    return run_training([*arguments, "--trainer.limit_val_batches", "1"], folder, steps=steps)


def run_training(
    arguments: Sequence[str], folder: Path, *, steps: int, every: int | None = None
) -> Path:
    """The folder of logs and checkpoints of a run of ``train.py``, validated ``every`` so often.

    It lies in FOLDER/NAME once it has ended; what was stopped before is made again.
    """
    if list(folder.glob("*/run")):
        raise SystemExit(f"{folder} holds an earlier run: choose another folder, or remove it")
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [
        *(sys.executable, "train.py", *arguments),
        *("--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(every or steps)),
        *("--trainer.logger.init_args.save_dir", str(unfinished)),
        *("--trainer.logger.init_args.version", "run"),
        *("--trainer.enable_progress_bar", "false"),
    ]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (named,) = unfinished.iterdir()
    run = named.rename(folder / named.name) / "run"
    unfinished.rmdir()
    return run


def _steps_per_second(run: Path) -> float:
    """The harmonic mean over the logged intervals, of equal steps each, but the first three."""
    events = EventAccumulator(str(run))
    events.Reload()
    rates = [event.value for event in events.Scalars("train/images_per_s")]
    rates = rates[3:] or rates  # workers and caches are still starting
    batch = yaml.safe_load((run / "config.yaml").read_text())["data"]["batch_size"]
    seconds_a_step = sum(batch / rate for rate in rates) / len(rates)
    return 1 / seconds_a_step


def own_photos(config: str) -> list[Sample]:
    """The validation samples of a recipe."""
    data = build_run(prepare(["--config", config])).datamodule
    data.setup("validate")
    return [data.sets["val"][i] for i in range(len(data.sets["val"]))]


def pairs_of(folder: Path) -> list[Sample]:
    """The pairs of a task, their middle 512 x 512 pixels at most, or none."""
    if not (folder / "LQ").is_dir():
        return []
    lq, gt, mask = (folder / part for part in ("LQ", "GT", "mask"))
    masked = mask.is_dir() and len(list(mask.iterdir())) == len(list(lq.iterdir()))
    given = str(mask) if masked else None
    pairs = PairedFolder(str(lq), str(gt), mask=given, crop_size=_LARGEST)
    return [pairs[i] for i in range(len(pairs))]


@torch.no_grad()
def restore(
    denoiser: Denoiser,
    sample: Sample,
    sampler: Sampler,
    *,
    task: str | None = None,
) -> Tensor:
    """One sample restored from the noise of its name, ``[1, C, H, W]`` in [0, 1]."""
    lq = sample["lq"][None]
    mask = sample["mask"][None] if "mask" in sample else None
    model = BoundDenoiser(denoiser, make_context(denoiser.network, lq, task=task, mask=mask))
    return sampler(model, lq, noise=named_noise(0, [sample["name"]])).clamp(0, 1)


@torch.no_grad()
def quality(
    denoiser: Denoiser,
    samples: Iterable[Sample],
    *,
    sampler: str = "fidelity",
    nfe: int = 5,
    task: str | None = None,
    meter: Meter,
    keep: Callable[[str, Tensor], None] | None = None,
) -> Quality:
    """Restore samples one by one from the noise of their names, and measure before and after.

    Args:
        denoiser: the model.
        samples: with ``lq``, ``gt``, ``name`` and perhaps ``mask``.
        sampler: its name.
        nfe: network calls an image.
        task: that of the samples, for a model of several; None lets it judge.
        meter: of PSNR and SSIM at least.
        keep: called with each name and its degraded, restored and true image ``[3, C, H, W]``.
    """
    run = make_sampler(sampler, nfe=nfe)
    before: list[dict[str, float]] = []
    after: list[dict[str, float]] = []
    for sample in samples:
        lq, gt = sample["lq"][None], sample["gt"][None]
        restored = restore(denoiser, sample, run, task=task)
        for image, rows in ((lq, before), (restored, after)):
            rows.append({name: float(value[0]) for name, value in meter(image, gt).items()})
        if keep is not None:
            keep(sample["name"], torch.cat([lq, restored, gt]))
    return Quality(_mean(before), _mean(after), len(after))


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
