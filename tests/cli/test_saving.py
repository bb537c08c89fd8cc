"""Work is never lost: when checkpoints are written, how, and that a resumed run is the same one."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from callbacks import EMA, SaveLast
from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.train import command as train
from mrdiff.cli.train.resume import find_checkpoint
from mrdiff.cli.train.slurm import checkpoint_of_job, refuse_strangers
from mrdiff.cli.train.stop import StopBySignal
from tests.cli.test_train import CHECKPOINTS, read, work
from tests.places import ROOT
from tests.tiny_training import loader, tiny_module, tiny_trainer

__all__ = ["work"]  # a fixture

PROBE = '''
import signal
from lightning.pytorch import Callback


class Stop(Callback):
    """SIGTERM after a number of batches, or in a validation after so many."""

    def __init__(self, after: int, validating: bool = False) -> None:
        self.after, self.validating = after, validating

    def look(self, trainer):
        if trainer.fit_loop.total_batch_idx + 1 == self.after:
            signal.raise_signal(signal.SIGTERM)

    def on_train_batch_end(self, trainer, *_):
        if not self.validating:
            self.look(trainer)

    def on_validation_start(self, trainer, *_):
        if self.validating:
            self.look(trainer)


class Seen(Callback):
    """Prints every training sample, and the step of every validation."""

    def on_train_batch_start(self, trainer, module, batch, index):
        for image in batch["lq"]:
            print("SEEN", float(image.double().sum()))

    def on_validation_end(self, trainer, module):
        print("VALIDATED", trainer.global_step)
'''


@pytest.fixture
def probe(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (work / "probe.py").write_text(PROBE)
    monkeypatch.syspath_prepend(str(work))
    monkeypatch.delitem(sys.modules, "probe", raising=False)
    return work


def run(*arguments: str) -> int:
    return train.main(["--config", "tiny.yaml", *arguments], program="train.py")


def seen(capsys: pytest.CaptureFixture[str], mark: str = "SEEN") -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith(mark)]


def same_ends(one: Path, other: Path) -> None:
    ours, theirs = read(one), read(other)
    for part in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
        torch.testing.assert_close(ours[part], theirs[part], rtol=0, atol=0)
    assert ours["global_step"] == theirs["global_step"]


@contextmanager
def full_disk(size: int = 1000) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Steps(Callback):
    """Notes the step of ``last.ckpt`` behind each batch and each validation."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int, int | None]] = []

    def _note(self, trainer: Trainer, where: str) -> None:
        path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        step = read(path)["global_step"] if path.exists() else None
        self.found.append((where, trainer.global_step, step))

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._note(trainer, "batch")

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        self._note(trainer, "end")


def test_last_follows_every_validation_best_or_not(tmp_path: Path) -> None:
    steps = Steps()
    best = ModelCheckpoint(monitor="train/loss", mode="max", save_last=True, filename="best")
    trainer = tiny_trainer(
        tmp_path, EMA(decay=0.5), SaveLast(), best, steps, max_epochs=6, val_check_interval=1
    )
    trainer.fit(tiny_module(), loader(count=4), loader(count=4))
    assert steps.found[1:] == [*(("batch", n, n) for n in range(1, 6)), ("end", 6, 6)]
    files = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert files == ["best.ckpt", "last.ckpt"]
    assert read(tmp_path / "checkpoints/last.ckpt")["callbacks"]["SaveLast"]["last_model_path"]


def test_last_is_written_every_so_often_at_whole_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = Steps()
    trainer = tiny_trainer(
        tmp_path,
        SaveLast(minutes=1e-9),
        steps,
        max_epochs=1,
        accumulate_grad_batches=2,
        enable_checkpointing=True,
    )
    trainer.fit(tiny_module(), loader(count=20))
    assert [step for _, _, step in steps.found] == [None, None, 1, 1, 2, 3]
    assert "note: nothing is validated: a checkpoint is written every" in capsys.readouterr().err
    with pytest.raises(ValueError, match="minutes must be positive"):
        SaveLast(minutes=0)


def test_a_checkpoint_is_written_beside_its_place_and_the_user_may_choose_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    killed = tmp_path / "checkpoints" / f".mrdiff.{'0' * 8}.1.{'0' * 8}.tmp"
    killed.parent.mkdir()
    killed.touch()
    os.utime(killed, (0, 0))
    trainer = tiny_trainer(tmp_path, SaveLast(), max_epochs=1, enable_checkpointing=True)
    trainer.fit(tiny_module(), loader(), loader())
    assert [path.name for path in killed.parent.iterdir()] == ["last.ckpt"]

    replace, moved = os.replace, list[str]()
    monkeypatch.setattr(os, "replace", lambda a, b: (moved.append(str(b)), replace(a, b))[1])
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    options: dict[str, Any] = {"enable_checkpointing": True, "plugins": [AsyncCheckpointIO()]}
    again = tiny_trainer(tmp_path / "b", SaveLast(), max_epochs=1, **options)
    again.fit(tiny_module(), loader(), loader())
    assert {Path(path).name for path in moved} == {"plain.ckpt", "last.ckpt"}


def test_a_save_that_fails_costs_a_line_and_the_next_one_may_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Filling(Callback):
        """Full while the second of three epochs is validated, whose loss is the best."""

        def on_validation_epoch_end(self, trainer: Trainer, module: Any) -> None:
            module.log("score", float(trainer.current_epoch))
            if trainer.current_epoch == 1:
                self.full = full_disk()
                self.full.__enter__()

        def on_train_epoch_start(self, trainer: Trainer, module: Any) -> None:
            if trainer.current_epoch == 2:
                self.full.__exit__(None, None, None)

    best = ModelCheckpoint(monitor="score", mode="max", filename="{score:.0f}")
    trainer = tiny_trainer(tmp_path, Filling(), best, SaveLast(), max_epochs=2)
    with pytest.raises(OSError, match="the end of the run is not saved") as failed:
        trainer.fit(tiny_module(), loader(), loader())
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    folder = tmp_path / "checkpoints"
    assert failed.value.filename == str(folder / "last.ckpt")
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert said[0] == f"note: {folder / 'score=1.ckpt'} is not saved: File too large"
    assert sorted(path.name for path in folder.iterdir()) == ["last.ckpt", "score=0.ckpt"]
    assert read(folder / "last.ckpt")["global_step"] == 2, "the good one was kept"
    assert best.best_model_path == str(folder / "score=0.ckpt")

    best = ModelCheckpoint(monitor="score", mode="max", filename="{score:.0f}")
    trainer = tiny_trainer(tmp_path / "b", Filling(), best, SaveLast(), max_epochs=3)
    trainer.fit(tiny_module(), loader(), loader())
    names = sorted(path.name for path in (tmp_path / "b/checkpoints").iterdir())
    assert names == ["last.ckpt", "score=2.ckpt"]
    plain = tiny_trainer(tmp_path, max_epochs=1)
    plain.fit(tiny_module(), loader())
    with full_disk(), pytest.raises(OSError, match="File too large"):
        plain.save_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "x.ckpt").exists()


def test_a_second_run_in_one_folder_leaves_the_first_its_files(tmp_path: Path) -> None:
    for _ in range(2):
        best = ModelCheckpoint(monitor="train/loss", filename="best")
        tiny_trainer(tmp_path, SaveLast(), best, max_epochs=1).fit(tiny_module(), loader())
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["best-v1.ckpt", "best.ckpt", "last-v1.ckpt", "last.ckpt"]


def test_a_stop_within_a_step_resumes_within_it(
    probe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--data.batch_size", "1", "--trainer.max_steps", "3")
    three = ("--trainer.accumulate_grad_batches", "3")
    stop = ("--trainer.callbacks+=probe.Stop", "--trainer.callbacks.after=4")
    assert run(*options, *three, *stop) == 143
    last = CHECKPOINTS / "last.ckpt"
    assert read(last)["continuing"]["accumulated"] == 1
    kept = last.rename("kept.ckpt")
    assert run(*options, *three, "--ckpt_path", str(kept), "--trainer.default_root_dir", "on") == 0
    assert run(*options, *three, "--trainer.default_root_dir", "whole") == 0
    within = last.relative_to("runs")
    same_ends("on" / within, "whole" / within)

    two = ("--trainer.accumulate_grad_batches", "2")
    capsys.readouterr()
    assert run(*options, *two, "--ckpt_path", str(kept), "--trainer.default_root_dir", "on") == 0
    said = "note: a step accumulates 2 batches (before: 3), the first one 2; the 1 batches of the"
    assert said in capsys.readouterr().err


def test_a_stop_behind_an_epoch_resumes_at_the_next_one(probe: Path) -> None:
    options = ("--trainer.accumulate_grad_batches", "2", "--trainer.max_steps", "4")
    stop = ("--trainer.callbacks+=probe.Stop", "--trainer.callbacks.after=3")
    assert run(*options, *stop) == 143
    kept = (CHECKPOINTS / "last.ckpt").rename("kept.ckpt")
    assert run(*options, "--ckpt_path", str(kept), "--trainer.default_root_dir", "on") == 0
    assert run(*options, "--trainer.default_root_dir", "whole") == 0
    within = (CHECKPOINTS / "last.ckpt").relative_to("runs")
    same_ends("on" / within, "whole" / within)


@pytest.mark.parametrize("validating", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_validation_that_was_cut_short_is_made_up_for(
    probe: Path, validating: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "2")
    look = ("--trainer.callbacks+=probe.Seen",)
    stop = ("--trainer.callbacks+=probe.Stop", "--trainer.callbacks.after=4")
    assert run(*options, *look, *stop, f"--trainer.callbacks.validating={validating}") == 143
    assert seen(capsys, "VALIDATED") == ["VALIDATED 2"], "it stops before or within validation"
    last = CHECKPOINTS / "last.ckpt"
    assert read(last)["continuing"]["validation_due"]
    assert run(*options, *look, "--ckpt_path", "last") == 0
    assert seen(capsys, "VALIDATED") == ["VALIDATED 4", "VALIDATED 6"]
    assert run(*options, "--trainer.default_root_dir", "whole") == 0
    same_ends(last, "whole" / CHECKPOINTS.relative_to("runs") / "last.ckpt")
    assert sorted(path.suffix for path in CHECKPOINTS.iterdir()) == [".ckpt", ".ckpt"]


def test_another_batch_size_goes_on_with_what_was_not_seen(
    probe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    look = ("--trainer.callbacks+=probe.Seen",)
    run(*look, "--trainer.max_steps", "8", "--trainer.default_root_dir", "whole")
    whole = seen(capsys)  # three batches of 2 an epoch
    run(*look, "--trainer.max_steps", "5")
    first = seen(capsys)
    for size, steps in (("1", "8"), ("3", "9")):
        more = ("--trainer.max_steps", steps, "--ckpt_path", "last")
        assert run(*look, "--data.batch_size", size, *more) == 0
        captured = capsys.readouterr()
        first += [line for line in captured.out.splitlines() if line.startswith("SEEN")]
        assert f"note: batches of {size} (before: " in captured.err
    assert first == whole[:16]


def test_a_run_keeps_one_best_and_one_last_however_its_folder_is_called(work: Path) -> None:
    Path("elsewhere").symlink_to("runs")
    best = ("--trainer.callbacks.filename", "best", "--trainer.check_val_every_n_epoch", "1")
    for steps, folder in enumerate(("runs", "elsewhere"), 1):
        more = ("--ckpt_path", "last") if steps > 1 else ()
        options = (*best, "--trainer.max_steps", str(3 * steps))
        assert run(*options, "--trainer.default_root_dir", folder, *more) == 0
        assert sorted(path.name for path in CHECKPOINTS.iterdir()) == ["best.ckpt", "last.ckpt"]
        assert read(CHECKPOINTS / "last.ckpt")["global_step"] == 3 * steps
    assert len(list(Path("runs/lightning_logs").iterdir())) == 1
    (CHECKPOINTS / "last.ckpt").unlink()  # as if killed between the two
    more = ("--ckpt_path", str(CHECKPOINTS / "best.ckpt"), "--trainer.default_root_dir", "./runs")
    assert run(*best, "--trainer.max_steps", "9", *more) == 0
    assert sorted(path.name for path in CHECKPOINTS.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_an_unreadable_last_names_what_can_be_read(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = ("--trainer.callbacks.filename", "best", "--trainer.check_val_every_n_epoch", "1")
    run(*best, "--trainer.max_steps", "3")
    last = CHECKPOINTS / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    assert run("--ckpt_path", "last") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert str(last) in line
    assert line.endswith(f"{CHECKPOINTS / 'best.ckpt'} beside it can be read")


def test_nobody_elses_config_is_overwritten(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "config.yaml").write_text(mine := "# mine\nbase: tiny.yaml\n")
    plain = ("--config", "config.yaml", "--trainer.logger", "false", "--trainer.max_steps", "1")
    here = ("--trainer.default_root_dir", ".")
    for _ in range(2):
        assert train.main([*plain, *here], program="train.py") == 0
    assert (work / "config.yaml").read_text() == mine
    names = {path.name for path in (work / "checkpoints").glob("*.yaml")}
    assert names == {"config.yaml", "config-v1.yaml"}
    assert "note: the configuration is saved as checkpoints/config-v1.yaml" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("logger", "path"),
    [
        ({"class_path": "lightning.pytorch.loggers.CSVLogger"}, "logs/lightning_logs/version_3"),
        ({"class_path": "lightning.pytorch.loggers.WandbLogger"}, "logs/lightning_logs/k3x9"),
        ({"class_path": "mine.Logger"}, "logs/any/k3x9"),
        (False, "."),
        (None, "lightning_logs/version_0"),
    ],
)
def test_last_is_found_with_any_logger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logger: Any, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if logger:
        logger = {**logger, "init_args": {"save_dir": "logs"}}
    last = Path(path) / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    assert find_checkpoint("last", {"logger": logger}) == last


def test_last_is_beside_the_first_model_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [Path("lightning_logs/version_0/checkpoints"), Path("mine")]
    kind = "lightning.pytorch.callbacks.ModelCheckpoint"
    callbacks: list[dict[str, Any]] = [{"class_path": "callbacks.EMA"}, {"class_path": kind}]
    callbacks.append({"class_path": kind, "init_args": {"dirpath": "mine"}})
    for path, order in zip(paths, (callbacks, callbacks[::-1]), strict=True):
        path.mkdir(parents=True)
        (path / "last.ckpt").touch()
        assert find_checkpoint("last", {"callbacks": order}) == path / "last.ckpt"


def test_a_resumed_run_keeps_metrics_and_folder_and_its_config_is_a_recipe(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = ("--trainer.logger", "lightning.pytorch.loggers.CSVLogger")
    logger += ("--trainer.logger.save_dir", "runs")
    assert run(*logger, "--trainer.max_steps", "2", "--data.val", "null") == 0
    assert "note: nothing is validated: a checkpoint is" in capsys.readouterr().err
    folder = CHECKPOINTS.parent
    first = (folder / "metrics.csv").read_text()
    assert run(*logger, "--trainer.max_steps", "4", "--ckpt_path", "last") == 0
    assert f"note: earlier metrics are kept as {folder}/metrics-v1.csv" in capsys.readouterr().err
    assert (folder / "metrics-v1.csv").read_text() == first
    assert (folder / "metrics.csv").read_text() != first
    assert [path.name for path in folder.parent.iterdir()] == ["version_0"]
    assert [path.name for path in CHECKPOINTS.iterdir()] == ["last.ckpt"]
    saved = (folder / "config.yaml").read_text()
    assert "ckpt_path: null" in saved
    assert "max_steps: 4" in saved


def train_process(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, str(ROOT / "train.py"), "--config", "tiny.yaml", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options: dict[str, Any] = {"capture_output": True, "text": True, "env": environment}
    done = subprocess.run(command, timeout=180, check=False, **options)
    return done.returncode, done.stderr


@pytest.mark.slow
def test_two_processes_stop_behind_one_batch_and_go_on_as_two_or_one(probe: Path) -> None:
    # Gradients of a step under way are kept as their mean: 64 bits, so that its rounding is small.
    two = ("--trainer.devices", "2", "--data.batch_size", "1", "--trainer.precision", "64-true")
    step = ("--trainer.accumulate_grad_batches", "2", "--trainer.max_steps", "4")
    stop = ("--trainer.callbacks+=probe.Stop", "--trainer.callbacks.after=4")
    status, said = train_process(*two, *step, *stop)
    assert status == 143, said
    assert said.splitlines()[-1].startswith("stopped: saved runs/")
    last = CHECKPOINTS / "last.ckpt"
    shutil.copy(last, "kept.ckpt")
    assert read(last)["continuing"]["accumulated"] == 1
    assert train_process(*two, *step, "--ckpt_path", "last")[0] == 0
    assert train_process(*two, *step, "--trainer.default_root_dir", "whole")[0] == 0
    ours, theirs = read(last), read("whole" / CHECKPOINTS.relative_to("runs") / "last.ckpt")
    for part in ("state_dict", "current_model_state"):
        torch.testing.assert_close(ours[part], theirs[part], rtol=1e-6, atol=1e-9)
    status, said = train_process("--ckpt_path", "kept.ckpt", "--trainer.max_steps", "4")
    assert status == 0
    assert "note: a step accumulates 1 batches (before: 2)" in said


@pytest.mark.parametrize("told", [True, False])
def test_processes_agree_between_batches_that_they_stop(told: bool) -> None:
    """The one that was told waits for none in its handler; the others stop with it."""
    stop, connector = StopBySignal(), SimpleNamespace(received_sigterm=False)
    strategy = SimpleNamespace(reduce_boolean_decision=lambda asked, all: asked or not told)
    trainer: Any = SimpleNamespace(world_size=2, strategy=strategy, _signal_connector=connector)
    stop._trainer = trainer
    stop.on_train_start(trainer, trainer)
    try:
        if told:
            signal.raise_signal(signal.SIGTERM)
    finally:
        stop.teardown(trainer, trainer, "fit")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert not connector.received_sigterm
    stop.on_train_batch_end(trainer)
    assert connector.received_sigterm


def test_slurm_resumes_its_own_job_from_the_folder_of_the_run(
    probe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bin_ = probe / "bin"
    bin_.mkdir()
    (bin_ / "scontrol").write_text(f"#!/bin/sh\necho $@ > {probe}/asked\n")
    (bin_ / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(bin_), prepend=os.pathsep)
    for name, value in {
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NAME": "train",
        "SLURM_JOB_ID": "77",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
    }.items():
        monkeypatch.setenv(name, value)
    text = (probe / "probe.py").read_text().replace("signal.SIGTERM", "signal.SIGUSR1")
    (probe / "probe.py").write_text(text)
    stop = ("--trainer.callbacks+=probe.Stop", "--trainer.callbacks.after=4")
    before = signal.getsignal(signal.SIGUSR1)
    try:
        assert run(*stop) == 143
    finally:
        signal.signal(signal.SIGUSR1, before)
    last = next(Path("runs").rglob("last.ckpt"))
    assert f"stopped: saved {last}; job 77 is requeued" in capsys.readouterr().err
    assert (probe / "asked").read_text() == "requeue 77\n"
    assert not list(probe.glob("*.ckpt"))

    assert run() == 0
    assert f"ckpt_path: {last}" in capsys.readouterr().err
    assert read(last)["global_step"] == 6
    assert checkpoint_of_job([last]) is None, "this run has ended"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # after a failure, say
    assert checkpoint_of_job([last]) == last
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    assert checkpoint_of_job([last]) is None

    (probe / "hpc_ckpt_1.ckpt").write_bytes(last.read_bytes())
    with pytest.raises(CommandError, match=r"hpc_ckpt_1\.ckpt: Lightning would take it"):
        refuse_strangers(probe)
