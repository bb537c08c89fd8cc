"""What validation and test log does not depend on how many processes share the images."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from callbacks import SamplingValidation, Teacher
from datamodules import RestorationData
from datamodules.datasets.base import RestorationDataset, Sample
from datamodules.randomness import SampleKey
from tests.places import ROOT
from tests.random_weights import ALEXNET, write_random_features
from tests.tiny_model import write_tiny_checkpoint
from tests.tiny_training import TinyImages, tiny_module, tiny_trainer

# (what is run, images, max_images, images a batch, tasks)
RUNS: list[tuple[str, int, int, int, int]] = [
    ("validate", 3, 8, 1, 0),  # one process has fewer
    ("validate", 7, 1, 2, 0),  # one process restores none
    ("validate", 8, 1, 1, 2),  # each process sees one task alone
    ("test", 1, 1, 1, 0),  # fewer than there are processes
    ("fit", 3, 8, 1, 0),
]


class Images(RestorationDataset):
    """Tiny images under so many tasks in turns, none for 0."""

    def __init__(self, count: int, tasks: int) -> None:
        self.images, self.names = TinyImages(count), tuple("abc"[:tasks])

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.names

    def __len__(self) -> int:
        return self.images.count

    def __getitem__(self, key: int | SampleKey) -> Sample:
        index = key.item if isinstance(key, SampleKey) else key
        sample: Any = self.images[index]
        return {**sample, "degradation": index % len(self.names)} if self.names else sample


class Keep(pl.Callback):
    """Writes what the first validation or the test logged."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        logged = trainer.callback_metrics
        values = {key: float(v) for key, v in logged.items() if "@" in key or key == "val/loss"}
        values = {key: v for key, v in values.items() if "seconds" not in key}
        if trainer.is_global_zero and not trainer.sanity_checking and not self.path.exists():
            self.path.write_text(json.dumps(values))

    on_test_end = on_validation_end


def evaluate(folder: Path, run: int, processes: int) -> None:
    what, count, most, size, tasks = RUNS[run]
    options: Any = {
        "samplers": ("mr-ode-1",),
        "nfes": (1,),
        "metrics": ("psnr", "fid"),
        "crop": None,
    }
    options |= {"lpips_weights": str(folder / "alexnet.pth"), "backbone": "alexnet"}
    teacher = Teacher(str(folder / "teacher.ckpt"), nfes=(2,))
    validation = SamplingValidation(max_images=most, teacher=teacher, **options)
    trainer = tiny_trainer(
        folder,
        validation,
        Keep(folder / f"{run}-{processes}.json"),
        devices=processes,
        strategy="auto" if processes == 1 else "ddp_fork",
        max_epochs=1,
        num_sanity_val_steps=1,
    )
    images = Images(count, tasks)
    data = RestorationData(images, images, images, val_batch_size=size, num_workers=0)
    getattr(trainer, what)(tiny_module(), datamodule=data)


def main(folder: str) -> None:
    """All runs, in one process and in two."""
    torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    write_tiny_checkpoint(Path(folder, "teacher.ckpt"))
    write_random_features(Path(folder, "alexnet.pth"), ALEXNET)
    for run in range(len(RUNS)):
        for processes in (1, 2):
            evaluate(Path(folder), run, processes)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
    program = f"from {__name__} import main; main({str(tmp_path)!r})"
    command = [sys.executable, "-W", "ignore", "-c", program]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for run, (what, count, _, size, _) in enumerate(RUNS):
        one, two = (json.loads((tmp_path / f"{run}-{n}.json").read_text()) for n in (1, 2))
        assert one.keys() == two.keys(), RUNS[run]
        assert ("val/psnr@2/teacher" in one) == (what == "fit")
        for key in one:
            if "fid" in key and count == 1:
                continue  # with two processes it is restored twice
            # The input and a teacher need no weights, which a step of two processes changes in
            # another way; and the times of a loss are spread over a batch.
            alike = what != "fit" and (size == 1 or "@" in key)
            if alike or "@input" in key or "/teacher" in key:
                expected = pytest.approx(one[key], abs=1e-4, nan_ok=True)  # one image is no set
                assert two[key] == expected, (RUNS[run], key)
