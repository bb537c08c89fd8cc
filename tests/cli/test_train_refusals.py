"""train.py: what cannot be trained is one line before training starts, the rest happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mrdiff.checkpoints.reading import load_model
from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.train import command as train
from mrdiff.cli.train.arguments import read_yaml

CONFIG = """
model:
  network:
    class_path: mrdiff.networks.UNet
    init_args: {widths: [4, 8], encoder: [1], middle: 1, decoder: [1], time_width: 8}
  lr_scheduler: {class_path: mrdiff.training.WarmupCosine, init_args: {warmup: 2}}
data:
  root: data
  batch_size: 2
  num_workers: 0
  train:
    class_path: datamodules.PairedFolder
    init_args: {lq: "${data.root}/LQ", gt: "${data.root}/GT", patch_size: 8}
  val:
    class_path: datamodules.PairedFolder
    init_args: {lq: "${data.root}/LQ", gt: "${data.root}/GT"}
trainer:
  accelerator: cpu
  max_steps: 3
  max_epochs: -1
  default_root_dir: runs
  enable_progress_bar: false
  enable_model_summary: false
  num_sanity_val_steps: 0
  check_val_every_n_epoch: null
  val_check_interval: 2
  log_every_n_steps: 1
  callbacks:
    - {class_path: callbacks.EMA, init_args: {decay: 0.9}}
    - {class_path: callbacks.SamplingValidation, init_args: {nfes: [1, 3], metrics: [psnr, ssim]}}
    - class_path: callbacks.FiniteLoss
    - class_path: lightning.pytorch.callbacks.LearningRateMonitor
"""
OWN = """
import lightning.pytorch as pl
from torch import nn

class Broken(nn.Module):
    def forward(self, out, target):
        return {"a": 1}["b"]

class Speaker(pl.Callback):
    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("mine/score", 1.0)
"""
ADD = "--trainer.callbacks+=lightning.pytorch.callbacks."


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pairs of 8 x 8 px: too small for SSIM."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for kind in ("LQ", "GT"):
        (folder / kind).mkdir()
        for i in range(4):
            pixels = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{i}.png")
    return folder


@pytest.fixture
def work(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    (tmp_path / "own_parts.py").write_text(OWN)
    (tmp_path / "data").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return train.main(["--config", "tiny.yaml", *arguments], program="train.py")


def monitor(callback: str, key: str) -> list[str]:
    return [ADD + callback, "--trainer.callbacks.monitor", key]


PLATEAU = "lightning.pytorch.cli.ReduceLROnPlateau"
REFUSED: list[tuple[list[str], str]] = [
    (monitor("ModelCheckpoint", "val/psnr@2"), "ModelCheckpoint follows val/psnr@2, which nothing"),
    (monitor("EarlyStopping", "val/lpips@3"), "logs; there are val/psnr@3, "),
    (
        ["--model.lr_scheduler", PLATEAU, "--model.lr_scheduler.monitor", "val/los"],
        "model.lr_scheduler follows val/los, which nothing logs; there are val/loss, ",
    ),
    (
        [*monitor("EarlyStopping", "val/loss"), "--trainer.limit_val_batches", "0"],
        "EarlyStopping follows val/loss, but nothing is validated",
    ),
    (
        [ADD + "StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", "1e-3"],
        "EMA and StochasticWeightAveraging both replace the weights: keep one",
    ),
    (["--trainer.precision", "16-true"], "trainer.precision 16-true keeps weights in 16 bits"),
    (["--trainer.precision", "transformer-engine"], "not met"),
    (["--trainer.logger", "lightning.pytorch.loggers.WandbLogger"], "not met"),
    (["--model.optimizer", "torch.optim.AdamW", "--model.optimizer.lr", "-1"], "learning rate: -1"),
    (["--model.loss", "torch.nn.Identity"], "Identity takes (input"),
    (["--model.loss", "own_parts.Broken"], "KeyError: 'b' ("),
    (["--minutes", "0"], "minutes must be positive, got 0"),
    (["--minutes", "soon"], "minutes: expected float, not soon"),
    (["--model.compile", "maybe"], "model.compile: expected bool or 'auto', not maybe"),
    (["--minutes", "2", "--trainer.max_steps", "9"], "(2) and trainer.max_steps both end the run"),
    (["--minutes", "2", "--trainer.max_time", "00:00:09:00"], "trainer.max_time both end the run"),
    (["--trainer.val_check_interval", "9", "--trainer.check_val_every_n_epoch", "1"], "(9) must"),
]


@pytest.mark.parametrize(("arguments", "expected"), REFUSED)
def test_what_cannot_be_trained_is_one_line(
    work: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    if "not met" in expected:
        name = "wandb" if "Wandb" in arguments[1] else "transformer_engine"
        try:
            __import__(name)
        except ImportError:
            pass
        else:
            pytest.skip(f"{name} is installed")
    assert run(*arguments) in (1, 2)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("train.py: error: ")
    assert expected in line
    assert not list(work.rglob("*.ckpt"))
    if "own_parts" in arguments[1]:
        assert f"({work}/own_parts.py, line 7, in forward)" in line


def test_what_lightning_offers_is_trained(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one run: 64 bits, no logger, a plateau, a timer, an own key, photos too small for SSIM."""
    arguments = [
        *("--trainer.precision", "64-true", "--trainer.logger", "false"),
        *("--model.lr_scheduler", "torch.optim.lr_scheduler.ReduceLROnPlateau"),
        *(ADD + "Timer", "--trainer.callbacks.duration", "00:01:00:00"),
        "--trainer.callbacks+=own_parts.Speaker",
        *monitor("EarlyStopping", "mine/score"),
        *(*monitor("ModelCheckpoint", "val/psnr@3"), "--trainer.callbacks.dirpath", "saved"),
        *("--trainer.callbacks.filename", "best"),
    ]
    assert run(*arguments) == 0
    said = capsys.readouterr().err
    assert "note: without a logger (trainer.logger) there is no LearningRateMonitor" in said
    content = torch.load(work / "saved/best.ckpt", weights_only=True)
    averaged, trained = content["state_dict"], content["current_model_state"]
    name = next(name for name in averaged if name.endswith("weight"))
    assert averaged[name].dtype == torch.float64
    assert not torch.equal(averaged[name], trained[name])
    network = load_model(work / "saved/best.ckpt", device="cpu").network
    assert next(network.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model:\n  a: 1\ntrainer:\n  b: {c: 1, c: 2}\n", "line 4: the key c stands in line 4"),
        ("trainer:\n  b: 1\ndata: {}\ntrainer: {}\n", "line 4: the key trainer stands in line 1"),
        ("a: [{b: 1,\n b: 2}]\n", "line 2: the key b stands in line 1"),
        ("trainer:\n", "the section trainer is empty"),
        ("data: 3\n", "the section data is no mapping"),
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
    ],
)
def test_repeated_keys_and_empty_sections_are_refused(
    tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(CommandError, match="^" + str(file)) as caught:
        read_yaml(file)
    assert expected in str(caught.value)


def test_aliases_and_merges_repeat_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: &a {b: {c: 1}}\nmodel: {<<: *a, d: *a, b: 2}\n")
    assert read_yaml(file) == {"data": {"b": {"c": 1}}, "model": {"b": 2, "d": {"b": {"c": 1}}}}


_PLAIN = st.recursive(
    st.integers() | st.booleans() | st.text("abc: #'\"\n-", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab:-"), inner, max_size=3),
)


@given(st.dictionaries(st.text("xyz", min_size=1), _PLAIN, max_size=4), st.booleans())
def test_every_other_file_reads_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any], flow: bool
) -> None:
    file = tmp_path_factory.getbasetemp() / "plain.yaml"
    file.write_text(yaml.safe_dump(content, default_flow_style=flow), encoding="utf-8")
    assert read_yaml(file) == content
