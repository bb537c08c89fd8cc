"""What TensorBoard gets, the loggers of W&B, MLflow and CSV files get: one run, all of them."""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from lightning.pytorch.loggers import TensorBoardLogger, mlflow, wandb
from lightning.pytorch.loggers.logger import Logger
from lightning_utilities.core.imports import RequirementCache
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks import SamplingValidation
from callbacks.loggers import draw
from mrdiff.cli.train.command import main
from tests.tiny_training import loader, tiny_module, tiny_trainer

_RECIPE = """
base: derain.yaml
model:
  network: {init_args: {widths: [8, 16], encoder: [1], middle: 1, decoder: [1]}}
data:
  train: {init_args: {images: 2, image_size: 96, length: 8, patch_size: 32}}
  val: {init_args: {size: 48}}
  batch_size: 2
  num_workers: 0
trainer:
  max_steps: 4
  val_check_interval: 2
  limit_val_batches: 2
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: callbacks.SamplingValidation
      init_args: {samplers: [fidelity, mr-ode-2], nfes: [1, 2], grid_images: 2}
    - callbacks.Throughput
    - lightning.pytorch.callbacks.LearningRateMonitor
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {monitor: val/psnr@2, mode: max, auto_insert_metric_name: false, filename: best}
"""
_BESIDE = ["--trainer.logger+=CSVLogger", "--trainer.logger.save_dir", "csv"]
_OVERLAYS = ["--config", "loggers/wandb.yaml", "--config", "loggers/mlflow.yaml"]
_PICTURES = {"val/grid", "val/grid/mr-ode-2", "val/quality_vs_nfe"}

Scalars = dict[str, dict[int, float]]  # by tag and step
Pictures = dict[tuple[str, int], Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of the runs, with the recipe, away from every account."""
    folder = tmp_path_factory.mktemp("loggers")
    (folder / "tiny.yaml").write_text(_RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_URI", "MRDIFF_LPIPS_WEIGHTS"):
            patch.delenv(name, raising=False)
        for name in ("NETRC", "WANDB_CONFIG_DIR", "TORCH_HOME"):
            patch.setenv(name, str(folder / "nothing"))
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield folder


def train(*flags: str) -> int:
    """The exit status; what W&B would do when the process ends is done."""
    status = main(["--config", "tiny.yaml", *flags])
    try:
        import wandb

        wandb.finish()
    except ImportError:
        pass
    return status


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A run of all loggers, by the overlays; the folder of TensorBoard's."""
    for package in ("wandb", "mlflow", "sqlalchemy"):
        pytest.importorskip(package, reason="needs mrdiff[loggers]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        assert train(*_OVERLAYS, *_BESIDE) == 0
    return folder / "runs" / "derain" / "version_0"


def wandb_records() -> Iterator[Any]:
    """What a run has written for the server: the log format of LevelDB, records in it."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = Path("runs/wandb").glob("offline-run-*/run-*.wandb")
    data, position, whole = path.read_bytes(), 7, b""
    while position < len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack("<4xHB", data[position : position + 7])
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(whole)
            whole = b""


def of_tensorboard(run: Path) -> tuple[Scalars, Pictures]:
    events = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    pictures = {
        (tag, image.step): np.array(Image.open(io.BytesIO(image.encoded_image_string)))
        for tag in tags["images"]
        for image in events.Images(tag)
    }
    return {
        tag: {e.step: e.value for e in events.Scalars(tag)} for tag in tags["scalars"]
    }, pictures


def of_csv(run: Path) -> tuple[Scalars, Pictures]:
    (table,) = Path("csv").rglob("metrics.csv")
    scalars: Scalars = {}
    for row in csv.DictReader(table.open()):
        for tag, value in row.items():
            if value and tag != "step":
                scalars.setdefault(tag, {})[int(row["step"])] = float(value)
    images = table.parent / "images"
    files = {(p.parent.relative_to(images).as_posix(), int(p.stem)): p for p in images.rglob("*.*")}
    return scalars, {key: np.array(Image.open(path)) for key, path in files.items()}


def of_wandb(run: Path) -> tuple[Scalars, Pictures]:
    scalars: Scalars = {}
    pictures: Pictures = {}
    (files,) = Path("runs/wandb").glob("offline-run-*/files")
    for record in wandb_records():
        found = {(*item.nested_key,): json.loads(item.value_json) for item in record.history.item}
        step = found.get(("trainer/global_step",))
        for (tag, *part), value in found.items():
            if part == ["filenames"]:
                pictures[tag, step] = np.array(Image.open(files / value[0]))
            elif not part:
                scalars.setdefault(tag, {})[step] = value
    return scalars, pictures


def of_mlflow(run: Path) -> tuple[Scalars, Pictures]:
    client, found = of_experiment()
    scalars = {
        tag: {m.step: m.value for m in client.get_metric_history(found.info.run_id, tag)}
        for tag in found.data.metrics
    }
    pictures = {}
    for file in client.list_artifacts(found.info.run_id, "images"):
        if file.path.endswith(".png"):
            tag, _, step, *_ = Path(file.path).stem.split("+")
            picture = client.download_artifacts(found.info.run_id, file.path)
            pictures[tag.replace("~", "/"), int(step)] = np.array(Image.open(picture))
    return scalars, pictures


def of_experiment() -> tuple[Any, Any]:
    from mlflow import MlflowClient

    client = MlflowClient("sqlite:///mlflow.db")
    experiment = client.get_experiment_by_name("derain")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    return client, found


@pytest.mark.parametrize("read", [of_csv, of_wandb, of_mlflow])
def test_every_logger_gets_the_numbers_and_pictures_of_tensorboard(run: Path, read: Any) -> None:
    expected, drawn = of_tensorboard(run)
    assert {"train/loss", "val/psnr@2", "val/psnr@2/mr-ode-2", "train/data_wait"} <= set(expected)
    assert set(expected["val/psnr@2"]) == {1, 3}
    assert set(drawn) == {(tag, step) for tag in _PICTURES for step in (2, 4)}
    assert all(picture.std() > 10 for picture in drawn.values())
    if read is of_mlflow:  # the one sign of our names that it refuses
        expected = {tag.replace("@", ""): values for tag, values in expected.items()}
    scalars, pictures = read(run)
    assert set(scalars) >= set(expected)
    for tag, values in expected.items():
        assert scalars[tag] == pytest.approx(values, rel=1e-6), tag
    assert set(pictures) == set(drawn)
    for key, picture in drawn.items():
        assert np.array_equal(pictures[key], picture), key


def test_every_logger_gets_the_configuration(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["trainer"]["max_steps"] == 4
    for file in (run / "hparams.yaml", next(Path("csv").rglob("hparams.yaml"))):
        assert yaml.safe_load(file.read_text()) == config
    updates = [item for record in wandb_records() for item in record.config.update]
    of_wandb = {item.key: json.loads(item.value_json) for item in updates if item.key}
    assert {key: of_wandb[key] for key in config} == config
    parameters = of_experiment()[1].data.params
    assert parameters["trainer/max_steps"] == "4"
    assert parameters["model/network/init_args/widths"] == "[8, 16]"
    assert "hp_metric" not in of_tensorboard(run)[0]


def test_the_folder_of_the_first_logger_is_the_runs(run: Path, folder: Path) -> None:
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert not list((folder / "csv").rglob("*.ckpt"))
    (started,) = (record.run for record in wandb_records() if record.HasField("run"))
    assert started.project == "derain"


ALONE = {
    "WandbLogger": [
        *("--trainer.logger.project", "alone", "--trainer.logger.offline", "true"),
        *("--trainer.logger.save_dir", "alone"),
    ],
    "MLFlowLogger": [
        *("--trainer.logger.experiment_name", "alone", "--trainer.default_root_dir", "alone"),
        *("--trainer.logger.tracking_uri", "sqlite:///mlflow.db"),
    ],
}


@pytest.mark.parametrize("name", ALONE)
def test_a_run_goes_on_in_its_folder_and_its_curves(
    run: Path, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    flags = ["--trainer.logger", name, *ALONE[name], "--trainer.max_steps"]
    before = set(folder.rglob("last*.ckpt"))
    assert train(*flags, "2") == 0
    (last,) = set(folder.rglob("last*.ckpt")) - before
    assert train(*flags, "4", "--ckpt_path", "last") == 0
    assert set(folder.rglob("last*.ckpt")) - before == {last}
    home = last.parents[1]
    if name == "WandbLogger":
        assert len(list(folder.glob(f"alone/wandb/offline-run-*/run-{home.name}.wandb"))) == 2
    else:
        from mlflow import MlflowClient

        history = MlflowClient("sqlite:///mlflow.db").get_metric_history(home.name, "val/psnr2")
        assert len(history) == 2


def refused(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert train(*flags) != 0
    return capsys.readouterr().err.splitlines()[-1].partition("error: ")[2]


@pytest.mark.parametrize(
    ("module", "requirement", "name"),
    [(wandb, "_WANDB_AVAILABLE", "wandb"), (mlflow, "_MLFLOW_AVAILABLE", "mlflow")],
)
def test_a_missing_package_is_named_with_its_cure(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    requirement: str,
    name: str,
) -> None:
    monkeypatch.setattr(module, requirement, RequirementCache(f"{name}>=999"))
    line = refused(capsys, "--config", f"loggers/{name}.yaml")
    assert line == f"trainer.logger needs {name}: pip install 'mrdiff[loggers]'"


@pytest.mark.parametrize("uri", ["null", "file:./mlruns"])
def test_the_store_of_files_is_refused(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    flags = ["--trainer.logger", "MLFlowLogger", "--trainer.logger.tracking_uri", uri]
    line = refused(capsys, *flags)
    assert line.startswith("trainer.logger: MLflow cannot keep a run in files: set MLFLOW_TRACKING")
    assert not list(folder.glob("mlruns/*/meta.yaml"))


def test_what_a_logger_refuses_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = pytest.importorskip("wandb", reason="needs mrdiff[loggers]")
    package.teardown()  # what was offline remembers it
    monkeypatch.delenv("WANDB_MODE", raising=False)
    line = refused(capsys, "--config", "loggers/wandb.yaml")
    assert line.startswith("trainer.logger: ")
    assert "wandb login" in line


class Own(Logger):
    """One that nobody knows."""

    name = version = "own"

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.seen = metrics

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


def test_a_logger_of_ones_own_gets_numbers_and_one_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="lightning.pytorch")
    callback, own = SamplingValidation(nfes=(1,), crop=None), Own()
    tensorboard = TensorBoardLogger(tmp_path, name="", version="tb")
    trainer = tiny_trainer(tmp_path, callback, logger=[own, tensorboard])
    trainer.fit(tiny_module(), loader(), loader())
    assert "val/psnr@1" in own.seen
    assert set(of_tensorboard(tmp_path / "tb")[1]) == {
        (tag, step) for tag in ("val/grid", "val/quality_vs_nfe") for step in (2, 4)
    }
    said = [line for line in caplog.messages if "gets numbers alone" in line]
    assert said == ["note: Own gets numbers alone: how it takes pictures is not known"]


def test_only_the_first_process_draws(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    logger, picture = CSVLogger(tmp_path, name="", version="csv"), np.zeros((8, 8, 3), np.uint8)
    for first in (False, True):
        trainer: Any = SimpleNamespace(is_global_zero=first, loggers=[logger], fast_dev_run=0)
        draw(trainer, "val/grid", picture, 3)
        assert (tmp_path / "csv" / "images" / "val" / "grid" / "3.png").is_file() is first
