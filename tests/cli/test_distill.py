"""Distilling by ``distill.yaml``: what is learnt from, how it is resumed, the student in use."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch  # noqa: F401  (its log handler must hold the real stderr)
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mrdiff import Restorer, load_model
from mrdiff.checkpoints.reading import read_checkpoint
from mrdiff.cli.main import main
from mrdiff.cli.train.arguments import prepare
from mrdiff.cli.train.run import build_run
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.networks import UNet
from mrdiff.solvers.presets import make_sampler
from mrdiff.system.names import SAMPLERS
from mrdiff.training import Consistency
from mrdiff.tuning.checkpoint_sampler import read_sampler
from tests.cli.test_saving import PROBE, same_ends
from tests.cli.test_train import last_line, read
from tests.tiny_model import PAIRS_CONFIG, write_pairs, write_tiny_checkpoint

CONFIG = (
    PAIRS_CONFIG
    + """\
model:
  lr_scheduler:
    class_path: mrdiff.training.WarmupCosine
    init_args: {warmup: 1}
trainer:
  accelerator: cpu
  precision: 32-true
  max_steps: 2
  default_root_dir: runs
  enable_progress_bar: false
  enable_model_summary: false
"""
)
QUICK = [
    *("--trainer.accelerator", "cpu", "--trainer.precision", "32-true"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
    *("--trainer.num_sanity_val_steps", "0", "--trainer.max_steps", "2"),
    *("--trainer.logger.init_args.version", "run", "--model.lr_scheduler.warmup", "1"),
]
UNWATCHED = ["--trainer.limit_val_batches", "0", "--trainer.callbacks", "callbacks.EMA"]
LAST = Path("runs/distill/run/checkpoints/last.ckpt")
STUDENT = {"name": "consistency", "nfe": 2}

needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="needs peft: pip install 'mrdiff[lora]'"
)


def distill(*arguments: str, start: str | None = "teacher.ckpt", command: str = "fit") -> int:
    given = [] if start is None else ["--init_from", start]
    return main(["train", command, "--config", "distill.yaml", *QUICK, *given, *arguments])


def built(*arguments: str) -> Any:
    return build_run(prepare(["--config", "distill.yaml", *QUICK, *arguments]))


@contextlib.contextmanager
def no_lpips() -> Iterator[None]:
    """Whatever weights this machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MRDIFF_LPIPS_WEIGHTS", raising=False)
        patch.setattr(torch.hub, "get_dir", lambda: "no-hub")
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pairs, a teacher that was trained on them by the command, and its student."""
    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder), no_lpips():
        write_pairs(Path("data"), [f"{i}.png" for i in range(4)])
        write_tiny_checkpoint(Path("old.ckpt"))
        Path("tiny.yaml").write_text(CONFIG)
        assert main(["train", "--config", "tiny.yaml", "--init_from", "old.ckpt"]) == 0
        (last,) = Path("runs").rglob("*.ckpt")
        last.rename("teacher.ckpt")
        assert distill("--trainer.max_steps", "4", "--trainer.val_check_interval", "2") == 0
        shutil.copy(LAST, "student.ckpt")
    return folder


@pytest.fixture
def work(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, but for the runs; the working directory."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.delenv("MRDIFF_LPIPS_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "no-hub")
    return tmp_path


@pytest.fixture
def after(work: Path, trained: Path) -> Path:
    """The same with the folder of the student's run, as if it had been made here."""
    shutil.copytree(trained / "runs/distill", work / "runs/distill")
    content = read(LAST)
    content["callbacks"]["SamplingValidation"]["teacher"] = str(work / "teacher.ckpt")
    torch.save(content, LAST)
    return work


def shown(checkpoint: Path) -> Path:
    """The teacher with whose curves a run goes on."""
    return Path(read(checkpoint)["callbacks"]["SamplingValidation"]["teacher"])


def edited(edit: Callable[[dict[str, Any]], Any], name: str = "edited.ckpt") -> str:
    """The teacher with another description."""
    content = read("teacher.ckpt")
    edit(content["mrdiff"])
    torch.save(content, name)
    return name


# What is learnt from


def test_a_student_learns_from_what_its_teacher_did(trained: Path) -> None:
    teacher, student = (read(trained / f"{name}.ckpt") for name in ("teacher", "student"))
    assert student["mrdiff"]["data"] == teacher["mrdiff"]["data"]
    assert student["mrdiff"]["data"]["train"]["init_args"]["patch_size"] == 8
    assert student["mrdiff"]["model"]["parameterization"] == "boundary"
    assert student["mrdiff"]["model"]["objective"]["class_path"] == "mrdiff.training.Consistency"
    assert student["mrdiff"]["sampler"] == STUDENT
    assert student["averaging_state"]["n_averaged"] == 4
    moved = [
        not torch.equal(value, teacher["state_dict"][name])
        for name, value in student["current_model_state"].items()
        if name.startswith("denoiser.")
    ]
    assert all(moved)
    names = sorted(path.name for path in (trained / LAST).parent.iterdir())
    assert names == ["best.ckpt", "last.ckpt"]
    best = read((trained / LAST).with_name("best.ckpt"))
    assert best["global_step"] == 4, "the latest, not the one of the highest PSNR"


def test_it_is_watched_beside_its_teacher(trained: Path) -> None:
    events = EventAccumulator(str(trained / "runs/distill/run"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    runs = ["1", "2", "5/teacher", "10/teacher"]
    metrics = ("psnr", "ssim", "sw", "seconds")
    expected = {f"val/{metric}@{run}" for metric in metrics for run in runs}
    assert {tag for tag in scalars if "@" in tag and "input" not in tag} == expected
    assert [event.step for event in events.Scalars("val/loss")] == [1, 3]
    first, second = (event.value for event in events.Scalars("val/psnr@5/teacher"))
    assert first == second


OWN = """\
data:
  train:
    class_path: datamodules.PairedFolder
    init_args: {lq: mine/lq, gt: mine/gt}
"""


def test_data_of_ones_own_is_not_mixed_with_that_of_the_checkpoint(work: Path) -> None:
    (work / "own.yaml").write_text(OWN)
    (work / "network.yaml").write_text(yaml.safe_dump({"model": {"network": NETWORK}}))
    expected = built("--config", "network.yaml", "--config", "own.yaml").model.data_config
    assert expected["train"]["init_args"]["lq"] == "mine/lq"
    assert (expected["val"], expected["batch_size"], expected["num_workers"]) == (None, 16, "auto")
    ways = {
        "a config": ["--config", "own.yaml"],
        "a flag": ["--data.train", json.dumps(yaml.safe_load(OWN)["data"]["train"])],
        "flags": [
            "--data.train.class_path=datamodules.PairedFolder",
            "--data.train.init_args.lq=mine/lq",
            "--data.train.init_args.gt=mine/gt",
        ],
    }
    for way, given in ways.items():
        found = built("--init_from", "teacher.ckpt", *given).model.data_config
        assert found == expected, way


NETWORK = {
    "class_path": "mrdiff.networks.UNet",
    "init_args": {
        "widths": [4, 8],
        "encoder": [1],
        "middle": 1,
        "decoder": [1],
        "time_width": 8,
    },
}


def test_options_of_the_data_change_that_of_the_checkpoint(work: Path) -> None:
    theirs = read("teacher.ckpt")["mrdiff"]["data"]
    assert built("--init_from", "teacher.ckpt").model.data_config == theirs
    theirs["train"]["init_args"]["patch_size"], theirs["batch_size"] = 16, 3
    flags = ["--data.train.init_args.patch_size", "16", "--data.batch_size", "3"]
    assert built("--init_from", "teacher.ckpt", *flags).model.data_config == theirs
    (work / "more.yaml").write_text("data: {train: {init_args: {patch_size: 16}}, batch_size: 3}")
    more = ["--config", "more.yaml", *UNWATCHED]
    assert distill(*more, "--trainer.max_steps", "1") == 0
    # As do those of a resumed run, whose folder is looked up before its checkpoint is known.
    assert distill(*more, "--ckpt_path", "last", start=None) == 0
    assert read(LAST)["mrdiff"]["data"] == theirs


@pytest.mark.parametrize("key", ["root", "degradation"])
def test_a_folder_of_which_nothing_would_be_made_is_refused(
    work: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill(f"--data.{key}", "datamodules.degradations.Rain") == 2
    assert f"data.{key} alone changes nothing: name data.train, too" in last_line(capsys)
    (work / "more.yaml").write_text(f"data: {{{key}: elsewhere}}")
    assert distill("--config", "more.yaml") == 2
    assert f"data.{key} alone changes nothing" in last_line(capsys)


def test_a_checkpoint_without_data_says_what_to_do(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As converted official ones are."""
    for data in (None, {"train": None}):
        bare = edited(lambda description, data=data: description.update(data=data))
        assert distill(start=bare) == 1
        cure = "name data.train, such as by --config paired.yaml --data.root ROOT"
        assert last_line(capsys).endswith(f"{bare} does not say what it was trained on: {cure}")
    for kind in ("lq", "gt"):
        for part in ("train", "test"):
            shutil.copytree(f"data/{kind}", f"root/{part}/{kind.upper()}")
    paired = ["--config", "paired.yaml", "--data.root", "root", "--data.batch_size", "2"]
    assert distill(*paired, *UNWATCHED, "--data.train.patch_size", "16", start=bare) == 0
    assert read(LAST)["mrdiff"]["data"]["train"]["init_args"]["lq"] == "root/train/LQ"


def test_without_a_model_there_is_one_line(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distill(start=None) == 2
    assert "no model.network: name one in a config, or start from a model with --init_from" in (
        last_line(capsys)
    )


def test_a_class_of_data_from_elsewhere_is_not_imported_unless_allowed(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "elsewhere.py").write_text(
        "open('imported', 'w')\n"
        "from datamodules import PairedFolder\n"
        "class Pairs(PairedFolder): pass\n"
    )
    monkeypatch.syspath_prepend(work)
    train = {"class_path": "elsewhere.Pairs", "init_args": {"lq": "data/lq", "gt": "data/gt"}}
    foreign = edited(lambda description: description["data"].update(train=train))
    assert distill(start=foreign) == 1
    line = last_line(capsys)
    assert "the class elsewhere.Pairs is outside the allowed packages" in line
    assert "--allow_package elsewhere" in line
    assert not Path("imported").exists()
    # Whoever names data of their own has nothing to do with it.
    (work / "own.yaml").write_text(OWN.replace("mine", "data"))
    built("--init_from", foreign, "--config", "own.yaml")
    assert not Path("imported").exists()
    small = ["--data.train.patch_size", "8"]
    assert distill("--allow_package", "elsewhere", *small, *UNWATCHED, start=foreign) == 0
    assert Path("imported").exists()
    # So does the student, which is resumed and evaluated with the same flag.
    more = ["--ckpt_path", "last", "--trainer.max_steps", "3"]
    assert distill(*more, *UNWATCHED, start=None) == 1
    assert distill(*more, *UNWATCHED, "--allow_package", "elsewhere", start=None) == 0


def test_what_a_checkpoint_would_have_read_as_a_config_is_refused(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "elsewhere.py").write_text("open('imported', 'w')")
    monkeypatch.syspath_prepend(work)
    (work / "notes").write_text("class_path: elsewhere.Pairs")
    (work / "all.yaml").write_text("train: {class_path: elsewhere.Pairs}")
    for data in ("all.yaml", {"train": "notes"}, {"train": {"class_path": "x", "a": ["notes"]}}):
        hostile = edited(lambda description, data=data: description.update(data=data))
        assert distill(start=hostile) == 1
        assert hostile in last_line(capsys)
    assert not Path("imported").exists()


def test_validation_and_test_take_the_data_from_the_student(
    after: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("teacher.ckpt").unlink()
    assert distill("--ckpt_path", "last", start=None, command="validate") == 0
    printed = capsys.readouterr().out
    assert "val/psnr@2" in printed
    assert "teacher" not in printed
    test = ["--data.test", json.dumps(read(LAST)["mrdiff"]["data"]["val"])]
    assert distill("--ckpt_path", "last", *test, start=None, command="test") == 0
    assert "test/psnr@2" in capsys.readouterr().out
    assert distill("--ckpt_path", "last", start=None, command="test") == 1
    assert "the data has no test set" in last_line(capsys)


def test_it_is_previewed(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = ["preview", "--config", "distill.yaml", "--output", "sheet.png", "--count", "2"]
    assert main([*sheet, "--init_from", "teacher.ckpt"]) == 0
    printed = capsys.readouterr().out
    assert "train: 4 samples, the first 2 drawn" in printed
    assert " 3 x 8 x 8 " in printed
    assert Path("sheet.png").is_file()
    assert main(sheet) == 2
    assert "start from a model with --init_from FILE" in last_line(capsys)


# Resumption


@pytest.mark.parametrize("target", ["data", "teacher"])
def test_a_resumed_distillation_is_the_one_that_was_not_interrupted(
    work: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the second of three stages, at half of the batch from the network's own answer."""
    (work / "probe.py").write_text(PROBE)
    monkeypatch.syspath_prepend(str(work))
    monkeypatch.delitem(sys.modules, "probe", raising=False)
    seen = list[tuple[int, float]]()
    stage = Consistency.stage

    def noted(self: Consistency, progress: float) -> int:
        seen.append((stage(self, progress), progress))
        return seen[-1][0]

    monkeypatch.setattr(Consistency, "stage", noted)
    options = [
        "--trainer.max_steps",
        "6",
        "--trainer.limit_val_batches",
        "0",
        "--trainer.callbacks",
    ]
    options += ["[callbacks.EMA, callbacks.SamplingValidation]"]
    options += ["--trainer.callbacks.metrics", "[psnr]"]
    teacher = ["--trainer.callbacks.teacher.checkpoint", "teacher.ckpt"]
    if target == "teacher":
        options += ["--model.objective.target=teacher", "--model.objective.teacher=teacher.ckpt"]
    stop = ["--trainer.callbacks+=probe.Stop", "--trainer.callbacks.after=3"]
    assert distill(*options, *teacher, *stop) == 143
    assert read(LAST)["global_step"] == 3
    assert distill(*options, "--ckpt_path", "last", start=None) == 0
    resumed = seen.copy()
    seen.clear()
    assert distill(*options, *teacher, "--trainer.logger.init_args.version", "whole") == 0
    assert [n for n, _ in seen] == [2, 2, 4, 4, 8, 8]
    assert resumed == seen
    whole = LAST.parents[2] / "whole/checkpoints/last.ckpt"
    same_ends(LAST, whole)
    random = (read(each)["continuing"]["cpu"] for each in (LAST, whole))
    assert torch.equal(*random)
    assert shown(LAST) == shown(whole) == Path("teacher.ckpt").absolute()


def test_the_curves_of_the_teacher_go_on(after: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = shutil.copy(LAST.parents[1] / "config.yaml", "saved.yaml")
    more = ["--ckpt_path", "last", "--trainer.max_steps"]
    assert distill(*more, "6", "--trainer.val_check_interval", "2", start=None) == 0
    events = EventAccumulator(str(LAST.parents[1]))
    events.Reload()
    values = [event.value for event in events.Scalars("val/psnr@10/teacher")]
    assert values == [values[0]] * 3
    Path("teacher.ckpt").unlink()
    capsys.readouterr()
    assert distill(*more, "7", "--trainer.limit_val_batches", "0", start=None) == 0
    said = "note: the teacher is not shown any more: no "
    assert capsys.readouterr().err.splitlines().count(f"{said}{after / 'teacher.ckpt'}") == 1
    assert read(LAST)["global_step"] == 7
    assert shown(LAST) == after / "teacher.ckpt", "it may come back"
    # The run's own configuration names it. To go on, it is not needed; to begin anew, it is.
    assert yaml.safe_load(Path(saved).read_text())["init_from"] == "teacher.ckpt"
    quiet = ["--trainer.limit_val_batches", "0"]
    assert main(["train", "--config", str(saved), *more, "8", *quiet]) == 0
    assert capsys.readouterr().err.splitlines().count(f"{said}teacher.ckpt") == 1
    assert read(LAST)["global_step"] == 8
    assert main(["train", "--config", str(saved)]) == 2
    assert last_line(capsys).endswith("error: no checkpoint teacher.ckpt")


def test_the_last_model_of_a_run_is_distilled_on(
    after: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["--trainer.logger.init_args.version", "again", "--trainer.limit_val_batches", "0"]
    assert distill(*again, start="last") == 0
    assert shown(LAST.parents[2] / "again/checkpoints/last.ckpt") == LAST.absolute()
    assert f"init_from: {LAST}" in capsys.readouterr().err


# The student in use


class Calls:
    """How often a U-Net was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, body = 0, UNet.body

        def counted(network: UNet, *arguments: Any) -> Any:
            self.count += 1
            return body(network, *arguments)

        monkeypatch.setattr(UNet, "body", counted)

    def of(self, run: Callable[[], int]) -> int:
        before = self.count
        assert run() == 0
        return self.count - before


def sampled(checkpoint: str, *flags: str, output: str = "out") -> int:
    files = ["--checkpoint", checkpoint, "--input", "data/lq/0.png", "--output", output]
    return main(["sample", *files, "--device", "cpu", "--tile", "off", *flags])


def picture(folder: str) -> bytes:
    return Path(folder, "0.png").read_bytes()


def test_a_student_restores_in_two_calls_with_no_flags(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    assert calls.of(lambda: sampled("student.ckpt")) == 2
    named = ["--sampler", "consistency", "--nfe", "2", "--grid", "uniform_angle(0.1)"]
    assert calls.of(lambda: sampled("student.ckpt", *named, output="named")) == 2
    assert picture("named") == picture("out")
    assert calls.of(lambda: sampled("student.ckpt", "--nfe", "1", output="one")) == 1
    assert picture("one") != picture("out")
    assert main(["export", "--checkpoint", "student.ckpt", "--output", "exported"]) == 0
    assert calls.of(lambda: sampled("exported", output="again")) == 2
    assert picture("again") == picture("out")
    assert read_checkpoint("exported").config["model"]["parameterization"] == "boundary"


def test_every_sampler_runs_on_a_student(work: Path) -> None:
    student = load_model("student.ckpt", "cpu")
    mu = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for name in SAMPLERS:
        noise = torch.Generator().manual_seed(1)
        with torch.no_grad():
            restored = make_sampler(name, nfe=4)(student, mu, noise=noise)
        assert bool(restored.isfinite().all()), name
        assert float((restored - mu).abs().max()) < 10, name


def test_a_student_is_tuned_on(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its weights are of the parameterization ``boundary``, which goes on unasked."""
    (work / "own.yaml").write_text(OWN.replace("mine", "data"))
    more = ["--config", "own.yaml", *QUICK, *UNWATCHED, "--data.train.patch_size", "8"]
    more += ["--data.val", "null", "--data.test", "null"]
    tune = ["train", "--config", "finetune.yaml", *more, "--init_from", "student.ckpt"]
    assert main(tune) == 0
    assert "loaded all 34 tensors" in capsys.readouterr().err
    tuned = "runs/finetune/run/checkpoints/last.ckpt"
    description = read(tuned)["mrdiff"]
    assert description["model"]["parameterization"] == "boundary"
    assert description["sampler"] == {"name": "fidelity", "nfe": 5}
    assert sampled(tuned) == 0
    assert main([*tune, "--model.parameterization", "data"]) == 1
    line = last_line(capsys)
    assert (
        "model.parameterization of this run differs from student.ckpt, which has boundary" in line
    )
    assert "set the same, or take them nevertheless with --init_mismatch true" in line
    nevertheless = ["--model.parameterization", "data", "--init_mismatch", "true"]
    assert main([*tune, *nevertheless, "--trainer.logger.init_args.version", "data"]) == 0
    forced = read("runs/finetune/data/checkpoints/last.ckpt")
    assert forced["mrdiff"]["model"]["parameterization"] == "data"


@needs_peft
def test_adapters_are_distilled_resumed_and_restored_with(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    assert distill(*UNWATCHED, "--model.lora.rank", "2") == 0
    assert distill(*UNWATCHED, "--ckpt_path", "last", "--trainer.max_steps", "3", start=None) == 0
    content = read(LAST)
    assert content["global_step"] == 3
    assert content["mrdiff"]["model"]["lora"]["rank"] == 2
    assert content["mrdiff"]["model"]["parameterization"] == "boundary"
    assert any("lora_A" in name for name in content["state_dict"])
    assert calls.of(lambda: sampled(str(LAST))) == 2
    assert main(["export", "--checkpoint", str(LAST), "--output", "exported"]) == 0
    assert calls.of(lambda: sampled("exported", output="again")) == 2
    assert picture("again") == picture("out")


def truth(*flags: str) -> None:
    """References that the student comes nearer to than the degraded photos are."""
    shutil.rmtree("data/gt")
    files = ["--checkpoint", "student.ckpt", "--input", "data/lq", "--output", "data/gt"]
    assert main(["sample", *files, "--device", "cpu", *flags]) == 0


MEASURED = ["--input", "data/lq", "--reference", "data/gt", "--device", "cpu"]


def test_the_middle_time_is_swept_and_kept(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth("--grid", "uniform_angle(0.2)")
    times = ["--sampler", "consistency", "--nfe", "2", "--grid"]
    times += ["uniform_angle(0.05)", "uniform_angle(0.2)"]
    sweep = ["sweep", "--checkpoint", "student.ckpt", *MEASURED, "--output", "swept", *times]
    assert main([*sweep, "--save"]) == 0
    printed = capsys.readouterr().out
    assert "--sampler consistency --nfe 2 --grid 'uniform_angle(0.2)'" in printed
    assert read_sampler("student.ckpt") == {**STUDENT, "grid": "uniform_angle(0.2)"}
    assert sampled("student.ckpt") == 0
    assert picture("out") == picture("data/gt")


def test_the_middle_time_is_optimised(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth("--grid", "uniform_angle(0.5)")
    grid = ["grid", "--checkpoint", "student.ckpt", *MEASURED, "--output", "grid.yaml"]
    assert main([*grid, "--sampler", "consistency", "--nfe", "2", "--metric", "psnr"]) == 0
    made = yaml.safe_load(Path("grid.yaml").read_text())["made"]
    assert made["solver"]["eta"] == float("inf")
    result = made["results"][2]
    assert result["after"] > max(result["before"].values())
    calls = Calls(monkeypatch)
    assert calls.of(lambda: sampled("student.ckpt", "--grid", "grid.yaml")) == 2
    assert picture("out") != picture("data/gt")


def test_a_sampler_of_options_is_kept_and_read(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``eta: .inf`` in a configuration, in a checkpoint and in an exported one."""
    options = {"eta": float("inf"), "order": 1, "nfe": 2, "grid": "uniform_angle(0.3)"}
    sampler = {"class_path": "mrdiff.MRSampler", "init_args": options}
    (work / "sampler.yaml").write_text(yaml.safe_dump({"model": {"sampler": sampler}}))
    assert "eta: .inf" in Path("sampler.yaml").read_text()
    assert distill(*UNWATCHED, "--config", "sampler.yaml", "--trainer.max_steps", "1") == 0
    calls = Calls(monkeypatch)
    assert calls.of(lambda: sampled(str(LAST))) == 2
    assert main(["export", "--checkpoint", str(LAST), "--output", "exported"]) == 0
    for source in (str(LAST), "exported"):
        assert {**(read_sampler(source) or {}), **options} == read_sampler(source)
    assert sampled("exported", output="again") == 0
    assert picture("again") == picture("out")
    assert sampled("exported", "--sampler", "mr-ode-1", "--nfe", "2", output="other") == 0
    assert picture("other") != picture("out")


# Teachers of all kinds


def test_noise_is_not_distilled(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = edited(lambda description: description["model"].update(parameterization="noise"))
    assert distill(start=teacher) == 2
    assert "data, velocity or preconditioned, not noise" in last_line(capsys)


@pytest.mark.parametrize("name", ["data", "velocity", "preconditioned", "boundary"])
def test_a_student_goes_on_with_what_its_teacher_predicts(work: Path, name: str) -> None:
    """But for ``data``, which has no value of its own at t = 0."""
    teacher = edited(lambda description: description["model"].update(parameterization=name))
    assert distill(*UNWATCHED, start=teacher) == 0
    wanted = "boundary" if name == "data" else name
    assert read(LAST)["mrdiff"]["model"]["parameterization"] == wanted
    student = load_model(LAST, "cpu")
    assert student.parameterization.name == wanted
    mu = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    restored = Restorer.from_checkpoint(LAST, device="cpu").restore(mu, ["a"])
    assert bool(restored.isfinite().all())
    # At t = 0 the state is the answer.
    x = mu + 0.01
    assert float((student(x, torch.tensor([1e-6]), mu).x0 - x).abs().max()) < 1e-3


def test_a_student_of_two_stages_keeps_the_first(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = ["--model.process", "mrdiff.FlowMatching", "--model.start", "teacher.ckpt"]
    (work / "network.yaml").write_text(yaml.safe_dump({"model": {"network": NETWORK}}))
    assert main(["train", "--config", "tiny.yaml", "--config", "network.yaml", *flow]) == 0
    (last,) = Path("runs").rglob("last.ckpt")
    last.rename("flow.ckpt")
    Path("teacher.ckpt").unlink()  # the checkpoint has it
    assert distill("--trainer.val_check_interval", "2", start="flow.ckpt") == 0
    content, before = read(LAST), read("flow.ckpt")
    assert content["mrdiff"]["model"]["start"] == before["mrdiff"]["model"]["start"]
    assert shown(LAST) == Path("flow.ckpt").absolute()
    first = [name for name in before["state_dict"] if name.startswith("denoiser.start.")]
    assert first
    assert all(torch.equal(content["state_dict"][n], before["state_dict"][n]) for n in first)
    calls = Calls(monkeypatch)
    assert calls.of(lambda: sampled(str(LAST))) == 3, "one of the start, two of the student"


def test_a_student_of_several_tasks_and_masks(work: Path) -> None:
    for task in ("rain", "holes"):
        shutil.copytree("data/lq", f"tasks/{task}/LQ")
        shutil.copytree("data/gt", f"tasks/{task}/GT")
    folders = {"root": "tasks", "tasks": ["rain", "holes"], "masks": True}
    sets = {
        role: {"class_path": "datamodules.TaskFolders", "init_args": {**folders, **more}}
        for role, more in {"train": {"patch_size": 16}, "val": {"crop_size": 16}}.items()
    }
    write_tiny_checkpoint(Path("many.ckpt"), tasks=["rain", "holes"], mask=True)
    content = read("many.ckpt")
    content["mrdiff"]["data"] = {**sets, "batch_size": 4, "num_workers": 0}
    torch.save(content, "many.ckpt")
    target = ["--model.objective.target=teacher", "--model.objective.teacher=many.ckpt"]
    assert distill(*target, "--trainer.val_check_interval", "2", start="many.ckpt") == 0
    student = load_model(LAST, "cpu")
    assert student.network.tasks == ("rain", "holes")
    assert shown(LAST) == Path("many.ckpt").absolute()
    events = EventAccumulator(str(LAST.parents[1]))
    events.Reload()
    assert {"val/psnr@5/teacher", "val/task_accuracy"} <= set(events.Tags()["scalars"])
    assert sampled(str(LAST), "--task", "rain") == 0
    moved = read(LAST)["current_model_state"], content["state_dict"]
    assert not torch.equal(*(state["denoiser.network.tail.weight"] for state in moved))


def test_a_teacher_of_another_path_is_no_target(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To be shown it may have any."""
    other = edited(lambda d: d["model"]["process"]["init_args"].update(sigma_max=0.4), "other.ckpt")
    target = ["--model.objective.target=teacher", f"--model.objective.teacher={other}"]
    assert distill(*target, *UNWATCHED) == 1
    assert "model.process of this run differs from that of other.ckpt" in last_line(capsys)
    assert distill(target[0], "--model.objective.teacher=none.ckpt", *UNWATCHED) == 1
    assert "no checkpoint at none.ckpt" in last_line(capsys)
    assert distill(target[0], *UNWATCHED) == 1
    assert "model.objective: target teacher needs its checkpoint" in last_line(capsys)


def test_the_model_that_is_built_has_the_objective(work: Path) -> None:
    run = built("--init_from", "teacher.ckpt")
    assert run.model.objective == Consistency(intervals=(2, 8), rollout=0.5)
    denoiser: Denoiser = run.model.denoiser
    assert denoiser.parameterization.name == "boundary"
    assert run.model.sampler.options() == make_sampler("consistency", nfe=2).options()
