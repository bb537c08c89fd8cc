"""The curves of a teacher beside those of its student: what they say, once, and at what cost."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch.utils.data import DataLoader, Subset

from callbacks import SamplingValidation, Teacher, sampling_validation
from callbacks import teacher as module_of_teacher
from callbacks.pictures import Panel, draw_quality
from callbacks.results import SamplerAt
from callbacks.teacher import TeacherScores
from mrdiff import BrownianBridge, MRDiffusion, MRProcess, load_model, make_sampler
from mrdiff.checkpoints.description import CheckpointError
from mrdiff.metrics import Meter
from mrdiff.networks import UNet
from mrdiff.solvers.noise import named_noise
from tests.callbacks.test_sampling_validation import no_lpips
from tests.checkpoints.test_description import Halved
from tests.tiny_model import write_tiny_checkpoint
from tests.tiny_training import (
    SIZE,
    TinyImages,
    TinyNetwork,
    loader,
    tiny_module,
    tiny_trainer,
    tiny_unet,
    trained,
    weights,
)

__all__ = ["no_lpips"]  # a fixture

NFES = (2, 3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A U-Net, which the students here are not, so that its calls can be counted."""
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("teacher") / "teacher.ckpt"))


def validation(checkpoint: str | None, **options: Any) -> SamplingValidation:
    given = Teacher(checkpoint, nfes=NFES)
    return SamplingValidation(
        **{"nfes": (1,), "metrics": ("psnr", "sw"), "crop": SIZE, "teacher": given, **options}
    )


class Counted:
    """Counts the calls of a function, which is called nevertheless."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, holder: Any, name: str) -> None:
        self.calls: list[tuple[Any, ...]] = []
        function: Callable[..., Any] = getattr(holder, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            self.calls.append(arguments)
            return function(*arguments, **options)

        monkeypatch.setattr(holder, name, counted)


def test_it_is_measured_once_and_shown_at_every_validation(
    tmp_path: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Counted(monkeypatch, UNet, "body")
    read = Counted(monkeypatch, module_of_teacher, "load_model")
    log = CSVLogger(tmp_path, name="", version="csv")
    callback, module = validation(checkpoint), tiny_module()
    known = {*callback.logged_keys(), *module.logged_keys()}
    trainer = tiny_trainer(tmp_path, callback, logger=log, max_epochs=3, num_sanity_val_steps=1)
    trainer.fit(module, loader(), loader())
    assert {*trainer.callback_metrics} == known
    assert len(read.calls) == 1
    assert len(asked.calls) == sum(NFES) * 2, "two batches, and no sanity check"
    assert callback._teacher._model is None
    rows = [row for row in csv.DictReader((tmp_path / "csv/metrics.csv").open()) if row["val/loss"]]
    assert len(rows) == 3
    keys = [f"val/{metric}@{nfe}/teacher" for metric in ("psnr", "sw") for nfe in NFES]
    for key in keys:
        assert len({row[key] for row in rows}) == 1, key
    assert len({row["val/psnr@1"] for row in rows}) == 3


def test_values_are_those_of_the_definition(tmp_path: Path, checkpoint: str) -> None:
    trainer = tiny_trainer(tmp_path, validation(checkpoint, max_images=5, seed=3), max_epochs=1)
    trainer.fit(tiny_module(), loader(), loader(batch_size=2))
    model = load_model(checkpoint, "cpu")
    totals: dict[tuple[int, str], float] = defaultdict(float)
    for image in (TinyImages()[i] for i in range(5)):
        lq, gt, noise = image["lq"][None], image["gt"][None], named_noise(3, [image["name"]])
        for nfe in NFES:
            with torch.no_grad():
                restored = make_sampler("perceptual", nfe=nfe)(model, lq, noise=noise)
            for metric, value in Meter(["psnr", "sw"])(restored, gt).items():
                totals[nfe, metric] += float(value) / 5
    assert len(totals) == 4
    for (nfe, metric), mean in totals.items():
        logged = float(trainer.callback_metrics[f"val/{metric}@{nfe}/teacher"])
        assert logged == pytest.approx(mean, rel=1e-4)


def test_a_run_with_a_teacher_is_the_run_without_one(tmp_path: Path, checkpoint: str) -> None:
    ends = []
    for given in (None, checkpoint):
        module = tiny_module()
        trainer = tiny_trainer(tmp_path, validation(given, samplers=("mr-sde-1",)))
        trainer.fit(module, loader(), loader())
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if "seconds" not in k}
        own = {key: value for key, value in metrics.items() if not key.endswith("/teacher")}
        assert (len(own) < len(metrics)) == (given is not None)
        ends.append((weights(module), own, torch.get_rng_state()))
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)


def test_a_chart_and_a_figure_have_its_curve(
    tmp_path: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = list[list[Panel]]()

    def draw(panels: list[Panel], **options: Any) -> Any:
        drawn.append(panels)
        return draw_quality(panels, **options)

    monkeypatch.setattr(sampling_validation, "draw_quality", draw)
    logger = TensorBoardLogger(tmp_path, name="", version="tb")
    trainer = tiny_trainer(tmp_path, validation(checkpoint), logger=logger, max_epochs=1)
    trainer.fit(tiny_module(), loader(), loader())
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == {"val/grid", "val/quality_vs_nfe"}
    layout = layout_pb2.Layout()
    (event,) = events.Tensors("custom_scalars__config__")
    layout.ParseFromString(event.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    panels = {panel.label: panel for panel in drawn[0]}
    labels = {"psnr": "PSNR in dB (higher is better)", "sw": "SW (lower is better)"}
    assert list(panels) == list(labels.values())
    assert list(charts) == [*labels.values(), "loss"]
    for metric, label in labels.items():
        runs = ("input", "1", "2/teacher", "3/teacher")
        assert [tag.strip("^$").replace("\\", "") for tag in charts[label]] == [
            f"val/{metric}@{run}" for run in runs
        ]
        curves = panels[label].curves
        assert list(curves) == ["mr-ode-2", "teacher"]
        assert curves["teacher"] == {
            nfe: float(trainer.callback_metrics[f"val/{metric}@{nfe}/teacher"]) for nfe in NFES
        }


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_it_has_no_part_in_an_evaluation(tmp_path: Path, stage: str) -> None:
    callback = validation("there is no such file.ckpt")
    trainer = tiny_trainer(tmp_path, callback, logger=TensorBoardLogger(tmp_path))
    (scores,) = getattr(trainer, stage)(tiny_module(), loader(), verbose=False)
    assert any("psnr@1" in key for key in scores)
    assert not any("teacher" in key for key in scores)


def damaged(folder: Path) -> Path:
    path = write_tiny_checkpoint(folder / "damaged.ckpt")
    path.write_bytes(path.read_bytes()[:2000])
    return path


def foreign(folder: Path) -> Path:
    trained(folder, steps=1, network=TinyNetwork())[1].rename(folder / "foreign.ckpt")
    return folder / "foreign.ckpt"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "missing.ckpt", r"no checkpoint at .*missing\.ckpt"),
        (damaged, r"damaged\.ckpt is not a readable checkpoint"),
        (foreign, r"foreign\.ckpt: the class tests\.tiny_training\.TinyNetwork is outside"),
    ],
)
def test_one_that_cannot_be_read_ends_a_run_before_its_first_step(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    module = MRDiffusion(UNet(widths=(4, 8), encoder=(1,), decoder=(1,)))
    before = weights(module)
    callback = validation(str(make(tmp_path)))
    with pytest.raises(CheckpointError, match=message) as caught:
        tiny_trainer(tmp_path, callback, num_sanity_val_steps=1).fit(module, loader(), loader())
    assert "\n" not in str(caught.value)
    assert module.trainer.global_step == 0
    torch.testing.assert_close(weights(module), before, rtol=0, atol=0)


class Own(BrownianBridge):
    """A path of the user's own."""


def test_whose_network_path_and_schedule_the_run_uses_is_read(tmp_path: Path) -> None:
    students = {foreign(tmp_path): tiny_module()}
    for path in (MRProcess(Halved(0.01)), Own()):
        folder = tmp_path / type(path).__name__
        folder.mkdir()
        students[trained(folder, steps=1, process=path)[1]] = MRDiffusion(tiny_unet(), path)
    for checkpoint, student in students.items():
        trainer = tiny_trainer(tmp_path, validation(str(checkpoint)), max_epochs=1)
        trainer.fit(student, loader(), loader())
        assert trainer.callback_metrics["val/psnr@2/teacher"].isfinite()


def test_it_may_have_another_path_but_needs_a_sampler_for_its_own(
    tmp_path: Path, checkpoint: str
) -> None:
    module = MRDiffusion(TinyNetwork(), BrownianBridge())
    euler = Teacher(checkpoint, sampler="euler-ode", nfes=NFES)
    trainer = tiny_trainer(tmp_path, validation(None, teacher=euler), max_epochs=1)
    trainer.fit(module, loader(), loader())
    assert trainer.callback_metrics["val/psnr@2/teacher"].isfinite()
    bridge = tiny_trainer(tmp_path, max_epochs=1)
    unet = UNet(widths=(4, 8), encoder=(1,), decoder=(1,))
    bridge.fit(MRDiffusion(unet, BrownianBridge()), loader())
    bridge.save_checkpoint(tmp_path / "bridge.ckpt")
    unfit = Teacher(str(tmp_path / "bridge.ckpt"), sampler="euler-ode")
    student = tiny_module()
    with pytest.raises(ValueError, match="euler-ode needs a path"):
        tiny_trainer(tmp_path, validation(None, teacher=unfit)).fit(student, loader(), loader())
    assert student.trainer.global_step == 0
    with pytest.raises(ValueError, match="unknown sampler"):
        validation(None, teacher=Teacher(checkpoint, sampler="fast"))


def test_a_resumed_run_goes_on_with_it_while_it_is_there(
    tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.ckpt"
    mine.write_bytes(Path(checkpoint).read_bytes())
    save = ModelCheckpoint(tmp_path, filename="model")
    tiny_trainer(tmp_path, validation(str(mine)), save, max_epochs=1).fit(
        tiny_module(), loader(), loader()
    )

    def resumed(given: str | None) -> dict[str, Any]:
        trainer = tiny_trainer(tmp_path, validation(given), max_epochs=2)
        trainer.fit(tiny_module(), loader(), loader(), ckpt_path=tmp_path / "model.ckpt")
        assert trainer.current_epoch == 2
        metrics: dict[str, Any] = trainer.callback_metrics
        return {key: value for key, value in metrics.items() if "psnr" in key}

    shown = [f"val/psnr@{nfe}/teacher" for nfe in NFES]
    assert set(shown) < set(resumed(None))
    assert capsys.readouterr().err.count("note:") == 0
    identical = write_tiny_checkpoint(tmp_path / "other.ckpt", identity=True)
    other = resumed(str(identical))
    # What is named wins; a new network restores nothing.
    assert float(other[shown[0]]) == pytest.approx(float(other["val/psnr@input"]), abs=0.1)
    mine.unlink()
    assert not set(shown) & set(resumed(None))
    said = f"note: the teacher is not shown any more: no {mine}"
    assert capsys.readouterr().err.splitlines().count(said) == 1
    assert set(shown) < set(resumed(checkpoint))
    gone = str(tmp_path / "gone.ckpt")
    assert not set(shown) & set(resumed(gone))
    assert capsys.readouterr().err.count(f"no {gone}\n") == 1
    mine.write_bytes(Path(checkpoint).read_bytes())
    assert set(shown) < set(resumed(gone)), "where the run found it before"


class Turning(TinyImages):
    """Four images, others after each turn."""

    turns = 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        return super().__getitem__(index + 4 * self.turns)


class Turn(Callback):
    """Turns after each validation."""

    def __init__(self, images: Turning) -> None:
        self.images = images

    def on_validation_end(self, *_: Any) -> None:
        self.images.turns += 1


def test_images_that_change_are_measured_anew(tmp_path: Path, checkpoint: str) -> None:
    images = Turning(4)
    log = CSVLogger(tmp_path, name="", version="csv")
    given: list[Callback] = [validation(checkpoint), Turn(images)]
    tiny_trainer(tmp_path, *given, logger=log).fit(
        tiny_module(), loader(), DataLoader(images, batch_size=4)
    )
    rows = [row for row in csv.DictReader((tmp_path / "csv/metrics.csv").open()) if row["val/loss"]]
    first, second = (float(row["val/psnr@2/teacher"]) for row in rows)
    assert first != second
    alone = tiny_trainer(tmp_path, validation(checkpoint), max_epochs=1)
    alone.fit(tiny_module(), loader(), DataLoader(Subset(TinyImages(), range(4, 8)), batch_size=4))
    expected = alone.callback_metrics["val/psnr@2/teacher"]
    assert second == pytest.approx(float(expected), rel=1e-5)


def test_its_model_is_read_again_for_images_that_are_new(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Counted(monkeypatch, module_of_teacher, "load_model")
    scores = TeacherScores(Teacher(checkpoint, nfes=NFES))
    measured = list[str]()

    def of(images: str) -> dict[SamplerAt, Any]:
        def once(*_: Any) -> dict[str, torch.Tensor]:
            measured.append(images)
            return {"psnr": torch.tensor([float(len(measured))])}

        return scores.of(images, torch.device("cpu"), once)

    scores.load()
    first = of("a")
    assert list(first) == [SamplerAt("teacher", nfe) for nfe in NFES]
    scores.release()
    assert of("a") is first
    assert len(read.calls) == 1
    assert of("b") is not first
    assert len(read.calls) == 2
    assert measured == ["a", "a", "b", "b"]
    assert scores.state_dict() == {"teacher": checkpoint}
    nobody = TeacherScores(Teacher())
    nobody.load()
    assert nobody.of("a", torch.device("cpu"), lambda *_: pytest.fail("nobody")) == {}
    assert nobody.state_dict() == {}


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_it_runs_in_the_trainers_precision(
    tmp_path: Path, checkpoint: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds, forward = set(), torch.nn.Conv2d.forward

    def noted(layer: torch.nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        out = forward(layer, x)
        kinds.add(out.dtype)
        return out

    module = tiny_module()
    trainer = tiny_trainer(tmp_path, validation(checkpoint), precision=precision, max_epochs=1)
    trainer.precision_plugin.convert_module(module)
    monkeypatch.setattr(torch.nn.Conv2d, "forward", noted)
    trainer.fit(module, loader(), loader())
    assert kinds == {torch.bfloat16 if precision == "bf16-mixed" else torch.float64}
    assert trainer.callback_metrics["val/psnr@2/teacher"].isfinite()
