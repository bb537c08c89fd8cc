"""Configs, docs, tests and checkpoints name classes by their public paths, not by their files."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mrdiff.checkpoints.description import class_paths, public_path
from mrdiff.cli.train import command as train
from tests.places import ROOT
from tests.tiny_model import PAIRS_CONFIG, write_pairs

OURS = ("mrdiff", "datamodules", "callbacks")
CLASS_PATH = re.compile(r"""class_path["']?: *["']?([\w.]+)""")
DOTTED = re.compile(r"(?<![\w.])(?:mrdiff|datamodules|callbacks)(?:\.\w+)*\.[A-Z]\w*(?:\.\w+)?")
# What is refused on purpose.
WRONG = {"mrdiff.networks.Missing", "mrdiff.checkpoints.reading.load_model"}

TINY = (
    PAIRS_CONFIG
    + """\
base: base.yaml
model:
  network:
    class_path: mrdiff.networks.UNet
    init_args: {widths: [4, 8], encoder: [1], middle: 1, decoder: [1], time_width: 8}
  process: {schedule: {class_path: mrdiff.LinearTheta}}
trainer:
  accelerator: cpu
  max_steps: 2
  enable_progress_bar: false
  enable_model_summary: false
  num_sanity_val_steps: 0
  val_check_interval: 2
  callbacks+:
    - class_path: callbacks.Throughput
"""
)


def resolve(path: str) -> Any:
    """The object at a dotted path, whose last parts may be attributes of a class."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        above, _, name = path.rpartition(".")
        return getattr(resolve(above), name)


def check(path: str) -> None:
    found, above = resolve(path), path.rpartition(".")[0]
    if inspect.isclass(resolve(above)):  # its method makes the object
        found, path = resolve(above), above
    if path.split(".")[0] in OURS:
        assert public_path(found) == path


def written() -> list[str]:
    found = set()
    for file in [*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]:
        text = file.read_text(encoding="utf-8")
        found |= {*CLASS_PATH.findall(text), *DOTTED.findall(text)}
    for file in ROOT.glob("tests/**/*.py"):
        found |= {*CLASS_PATH.findall(file.read_text(encoding="utf-8"))}
    known = (*OURS, "lightning", "torch")
    return sorted(path for path in found - WRONG if path.split(".")[0] in known and "." in path)


@pytest.mark.parametrize("path", written())
def test_written_paths_are_public(path: str) -> None:
    check(path)


def test_a_checkpoint_and_its_saved_config_have_public_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "data", ["0.png", "1.png"])
    Path("tiny.yaml").write_text(TINY)
    assert train.main(["--config", "tiny.yaml"]) == 0
    stored = [*Path("runs").rglob("last.ckpt")], [*Path("runs").rglob("config.yaml")]
    (checkpoint,), (config,) = stored
    described = class_paths(torch.load(checkpoint, weights_only=True)["mrdiff"])
    saved = class_paths(yaml.safe_load(config.read_text()))
    assert {"mrdiff.networks.UNet", "mrdiff.LinearTheta", "mrdiff.MRProcess"} <= {*described}
    assert {"mrdiff.networks.UNet", "callbacks.EMA", "datamodules.PairedFolder"} <= {*saved}
    for path in {*described, *saved}:
        check(path)
