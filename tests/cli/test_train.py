"""train.py: errors of one line, resuming, starting from old weights, stopping by signal."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch  # noqa: F401  (its log handler must hold the real stderr)
import numpy as np
import pytest
import torch
from PIL import Image

from mrdiff.checkpoints.reading import load_model
from mrdiff.cli.train import command as train
from tests.places import ROOT

CONFIG = """
seed_everything: 0
model:
  network:
    class_path: mrdiff.networks.UNet
    init_args: {widths: [4, 8], encoder: [1], middle: 1, decoder: [1], time_width: 8}
  lr_scheduler:
    class_path: mrdiff.training.WarmupCosine
    init_args: {warmup: 10, total: 1000}
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
  max_steps: 6
  max_epochs: -1
  default_root_dir: runs
  enable_progress_bar: false
  enable_model_summary: false
  num_sanity_val_steps: 0
  check_val_every_n_epoch: 1000
  log_every_n_steps: 1
  callbacks:
    - class_path: callbacks.EMA
      init_args: {decay: 0.9}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {save_last: true, monitor: val/loss}
"""
CHECKPOINTS = Path("runs/lightning_logs/version_0/checkpoints")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with six tiny pairs and a config; the working directory."""
    random = np.random.default_rng(0)
    for kind in ("LQ", "GT"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for i in range(6):
            pixels = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / kind / f"{i}.png")
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    return train.main(["--config", "tiny.yaml", *arguments], program="train.py")


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The error line, checked to be the only one."""
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if "error" in line.lower() or "Traceback" in line]
    assert len(errors) == 1, lines
    assert errors == lines[-1:]
    return errors[0]


def read(path: Path | str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data.rot", "x"], "unknown option --data.rot (did you mean --data.root?)"),
        (["--data.batch_size", "x"], "data.batch_size: expected int, not x"),
        (["--model.parameterization", "noize"], "expected one of 'data', 'noise', 'velocity'"),
        (["--model.network.init_args.widhts", "[4]"], "takes no widhts (did you mean widths?)"),
        (["--model.network", "mrdiff.networks.Nothing"], "cannot import mrdiff.networks.Nothing"),
        (["--model.data_std", "-1"], "data_std must be positive"),
        (["--trainer.accelerator", "qpu"], "invalid accelerator name"),
        (["--ckpt_path", "none.ckpt"], "no checkpoint none.ckpt"),
        (["--ckpt_path", "last"], "no last.ckpt below runs; leave it out to start a new run"),
        (["--init_from", "none.ckpt"], "no checkpoint none.ckpt"),
        (["--ckpt_path", "tiny.yaml", "--init_from", "tiny.yaml"], "give one of them"),
        (["--config", "rain.yaml", "--data.degradation.severity", "[0,2]"], ": severity must rise"),
        (["--data.degradation", "Rian"], "Rian names no class: give its import path"),
        (["--config", "task.yaml"], "DeadLeaves needs degradation; name one with --data.degrad"),
    ],
)
def test_a_wrong_configuration_is_one_line_and_status_2(
    work: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "rain.yaml").write_text("base: derain.yaml")
    assert run(*arguments) == 2
    line = last_line(capsys)
    assert line.startswith("train.py: error: ")
    assert expected in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: {batchsize: 3}", "unknown key data.batchsize (did you mean data.batch_size?)"),
        ("modle: {data_std: 1}", "unknown key modle.data_std (did you mean model.data_std?)"),
        ("model: {network: {init_args: {widht: 3}}}", "mrdiff.networks.UNet takes no widht"),
    ],
)
def test_a_wrong_key_in_a_file_is_one_line(
    work: Path, text: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "more.yaml").write_text(text)
    assert run("--config", "more.yaml") == 2
    assert expected in last_line(capsys)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("missing", "missing/LQ"), ("empty", "empty/LQ")],
)
def test_missing_data_is_one_line_and_status_1(
    work: Path, folder: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--data.root", folder) == 1
    assert expected in last_line(capsys)


def test_evaluation_needs_a_checkpoint(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["validate", "--config", "tiny.yaml"]) == 2
    assert "validate needs --ckpt_path last" in last_line(capsys)
    assert train.main(["test", "--config", "tiny.yaml", "--init_from", "x.ckpt"]) == 2
    assert "--init_from belongs to fit" in last_line(capsys)


def test_debug_shows_the_traceback(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MRDIFF_DEBUG", "1")
    with pytest.raises(Exception, match="unknown option"):
        run("--data.rot", "x")


def test_overlays_and_overrides_win_in_order(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "more.yaml").write_text("data: {root: other, batch_size: 4}\n")
    with pytest.raises(SystemExit) as stop:
        run("--config", "more.yaml", "--data.batch_size", "5", "--print_config")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "batch_size: 5" in printed
    assert "lq: other/LQ" in printed  # interpolated after everything is merged


def test_fit_validate_resume_and_start_from_weights(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    last = CHECKPOINTS / "last.ckpt"
    first = read(last)
    assert first["global_step"] == 6
    assert first["mrdiff"]["model"]["network"]["class_path"] == "mrdiff.networks.UNet"
    assert first["mrdiff"]["data"]["train"]["init_args"]["lq"] == "data/LQ"
    load_model(last, device="cpu")

    assert train.main(["validate", "--config", "tiny.yaml", "--ckpt_path", str(last)]) == 0
    assert "val/loss" in capsys.readouterr().out

    runs = set(Path("runs/lightning_logs").iterdir())
    assert run("--ckpt_path", "last", "--trainer.max_steps", "9") == 0
    assert set(Path("runs/lightning_logs").iterdir()) == runs
    assert read(last)["global_step"] == 9  # the same folder goes on

    assert run("--init_from", str(last), "--trainer.max_steps", "1") == 0
    (new,) = set(Path("runs/lightning_logs").iterdir()) - runs
    fresh = read(new / "checkpoints" / "last.ckpt")
    assert fresh["global_step"] == 1
    key = next(iter(fresh["state_dict"]))
    change = fresh["current_model_state"][key] - read(last)["state_dict"][key]
    assert 0 < change.abs().max() < 0.01

    capsys.readouterr()
    assert run("--init_from", str(last), "--model.parameterization", "noise") == 1
    assert "model.parameterization of this run differs" in last_line(capsys)


def test_minutes_end_a_run_and_its_rate(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "soon.yaml").write_text("minutes: 5\ntrainer: {max_steps: 2, val_check_interval: 1}\n")
    timed = ["--config", "soon.yaml", "--minutes", "0.01"]
    assert run(*timed, "--model.lr_scheduler.final", "0.25") == 0
    content = read(CHECKPOINTS / "last.ckpt")
    (state,) = (state for key, state in content["callbacks"].items() if "Budget" in key)
    assert state["finished"]
    assert state["elapsed"] > 0
    for group in content["optimizer_states"][0]["param_groups"]:
        assert group["lr"] == pytest.approx(0.25 * group["initial_lr"], rel=1e-12)
    saved = Path("runs/lightning_logs/version_0/config.yaml")
    assert "\nminutes: 0.01\n" in saved.read_text()
    # The saved configuration and its checkpoint: all of the time is used up.
    capsys.readouterr()
    assert train.main(["--config", str(saved), "--ckpt_path", "last"]) == 0
    assert "note: the 0.01 minutes are over" in capsys.readouterr().err
    assert read(CHECKPOINTS / "last.ckpt")["global_step"] == content["global_step"]


def test_flags_win_over_the_checkpoint(work: Path) -> None:
    assert run("--trainer.max_steps", "1") == 0
    assert run("--ckpt_path", "last", "--trainer.max_steps", "2", "--model.loss", "L2") == 0
    loss = read(CHECKPOINTS / "last.ckpt")["mrdiff"]["model"]["loss"]
    assert loss["class_path"] == "mrdiff.training.L2"


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), "--config", "tiny.yaml", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def stop_after(process: subprocess.Popen[str], steps: int, kind: signal.Signals) -> str:
    """Send the signal once ``steps`` steps are logged; returns stderr."""
    events = Path("runs/lightning_logs/version_0")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if sum(file.read_bytes().count(b"train/loss") for file in events.glob("events*")) > steps:
            break
        time.sleep(0.05)
    process.send_signal(kind)
    return process.communicate(timeout=60)[1]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_resumes_as_if_it_had_not_been(work: Path, kind: signal.Signals) -> None:
    process = start("--trainer.max_steps", "100000")
    errors = stop_after(process, 100, kind)
    assert process.returncode == 128 + kind, errors
    assert errors.splitlines()[-1].startswith("stopped: saved runs/")
    assert "Traceback" not in errors
    last = CHECKPOINTS / "last.ckpt"
    stopped = read(last)
    steps = stopped["global_step"]
    assert steps >= 50
    assert stopped["averaging_state"]["n_averaged"] == steps
    assert run("--ckpt_path", "last", "--trainer.max_steps", str(steps + 7)) == 0
    resumed = read(last)

    # The yardstick: one run of the same length that nothing interrupts.
    assert run("--trainer.default_root_dir", "whole", "--trainer.max_steps", str(steps + 7)) == 0
    whole = read("whole" / CHECKPOINTS.relative_to("runs") / "last.ckpt")
    assert resumed["global_step"] == whole["global_step"] == steps + 7
    assert resumed["lr_schedulers"] == whole["lr_schedulers"]
    assert resumed["averaging_state"] == whole["averaging_state"]
    for part in ("state_dict", "current_model_state"):
        torch.testing.assert_close(resumed[part], whole[part], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        resumed["optimizer_states"], whole["optimizer_states"], rtol=1e-3, atol=1e-5
    )
