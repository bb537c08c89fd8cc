"""mrdiff preview: the sheet, the printed numbers, the warnings and the errors of one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch  # noqa: F401  (its log handler must hold the real stderr)
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from mrdiff.cli import main
from mrdiff.cli.preview.report import Drawn, oddities, report
from mrdiff.cli.preview.run import draw
from mrdiff.cli.preview.sheet import difference, draw_sheet
from mrdiff.cli.train.arguments import prepare
from mrdiff.cli.train.run import build_run
from tests.places import ROOT

DOCS = ROOT / "docs" / "degradations.md"

CONFIG = """
seed_everything: 0
model:
  network:
    class_path: mrdiff.networks.UNet
    init_args: {widths: [4, 8], encoder: [1], middle: 1, decoder: [1], time_width: 8}
data:
  batch_size: 2
  degradation: datamodules.degradations.Rain
  train:
    class_path: datamodules.CleanFolder
    init_args: {path: photos, degradation: "${data.degradation}", patch_size: 32}
  val:
    class_path: datamodules.CleanFolder
    init_args: {path: photos, degradation: "${data.degradation}"}
trainer:
  accelerator: gpu
  devices: 8
  default_root_dir: runs
  logger:
    class_path: lightning.pytorch.loggers.TensorBoardLogger
    init_args: {save_dir: runs}
  callbacks:
    - class_path: callbacks.EMA
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with six photos of 48 x 40 and a config; the working directory."""
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(6):
        pixels = random.integers(0, 128, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*flags: str, config: str = "tiny.yaml", output: str = "sheet.png") -> int:
    return main.main(["preview", "--config", config, "--output", output, *flags])


def made(*flags: str) -> Any:
    """The data module of the run that is looked at."""
    here = ["--trainer.accelerator=cpu", "--trainer.devices=1"]
    data: Any = build_run(prepare(["--config", "tiny.yaml", *flags, *here])).datamodule
    data.setup("fit")
    return data


def numbers(printed: str, label: str, role: str = "train") -> list[float]:
    """The three numbers of a line of one set."""
    section = printed.split(f"{role}: ")[1].split("\n", 1)[1].split("samples,")[0]
    line = next(line for line in section.splitlines() if line.split()[0] == label)
    return [float(number) for number in re.findall(r"\d+\.\d+", line)]


def test_the_sheet_and_the_numbers_are_those_of_the_first_samples(work: Path, capsys) -> None:
    assert run("--count", "4") == 0
    printed = capsys.readouterr().out
    assert "train: 6 samples, the first 4 drawn" in printed
    assert "val: 6 samples, the first 4 drawn" in printed
    assert printed.endswith("drawn sheet.png\n")
    assert "warning" not in printed
    loader = made().train_dataloader()
    batches: Iterator[dict[str, Any]] = iter(loader)  # what training gets
    trained = [next(batches), next(batches)]
    lq, gt = (torch.cat([batch[key] for batch in trained]).double() for key in ("lq", "gt"))
    assert " 3 x 32 x 32 " in printed
    for key, images in (("lq", lq), ("gt", gt)):
        expected = [float(images.min()), float(images.mean()), float(images.max())]
        assert numbers(printed, key) == pytest.approx(expected, abs=5.1e-4)
    psnr = np.sort(-10 * (lq - gt).square().mean((1, 2, 3)).log10().numpy())
    expected = [psnr[0], np.median(psnr), psnr[-1]]
    assert numbers(printed, "psnr") == pytest.approx(expected, abs=0.006)
    milliseconds = float(re.findall(r"time  (\d+\.\d+) ms", printed)[0])
    speed = float(re.findall(r"(\d+) samples/s", printed)[0])
    assert speed == pytest.approx(1000 / milliseconds, rel=0.02)
    # 32 pixels become 160 and a frame of 1: three tiles and gaps a strip, three strips a row.
    with Image.open(work / "sheet.png") as sheet:
        assert sheet.size[0] == 3 * (3 * (162 + 6) + 12)
        assert sheet.mode == "RGB"
        degraded = np.asarray(sheet)[51:211:5, 7:167:5]
    assert np.array_equal(degraded, (lq[0].permute(1, 2, 0) * 255).round().byte().numpy())


def test_nothing_but_the_sheet_is_written(work: Path) -> None:
    before = sorted(work.rglob("*"))
    assert run("--count", "1", "--set", "train", output="new/sheet.jpg") == 0
    assert sorted({*work.rglob("*")} - {*before}) == [work / "new", work / "new" / "sheet.jpg"]


def test_overrides_seed_and_set(work: Path, capsys) -> None:
    pictures = {}
    for name, flags in {
        "plain": [],
        "seed": ["--seed", "3"],
        "data": ["--data.seed", "3"],
        "light": ["--data.degradation.severity", "[0.1,0.1]"],
    }.items():
        assert run("--set", "train", "--count", "2", *flags, output=f"{name}.png") == 0
        assert "val:" not in capsys.readouterr().out
        pictures[name] = (work / f"{name}.png").read_bytes()
    assert pictures["seed"] == pictures["data"]
    assert len(set(pictures.values())) == 3
    assert run("--set", "val", "--count", "5") == 0
    printed = capsys.readouterr().out
    assert "val: 6 samples, the first 5 drawn" in printed
    assert "train:" not in printed
    assert run("--set", "val", "--data.val", "null") == 2
    assert "the data has no val set" in capsys.readouterr().err


def test_masks_are_drawn_and_described(work: Path, capsys) -> None:
    holes = ["--data.degradation", "datamodules.degradations.Inpainting"]
    assert run(*holes, "--count", "2", "--set", "train") == 0
    printed = capsys.readouterr().out
    assert " 1 x 32 x 32 " in printed
    low, mean, high = numbers(printed, "mask")
    assert (low, high) == (0, 1)
    assert 0 < mean < 1
    with Image.open(work / "sheet.png") as sheet:
        assert sheet.size[0] == 2 * (4 * (162 + 6) + 12)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--output", "sheet.gif"], "--output sheet.gif: must end in .png, .jpg or .jpeg"),
        (["--output", "photos/0.png/x.png"], "photos/0.png is not a folder"),
        (["--output", "photos.png"], "--output photos.png: is a folder"),
        (["--config", "derian.yaml"], "no config file derian.yaml (did you mean derain.yaml?)"),
        (["--count", "0"], "argument --count: must be at least 1, got 0"),
        (["--seed", "-1"], "argument --seed: must not be negative, got -1"),
        (["--set", "vall"], "argument --set: unknown set vall (did you mean val?)"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_slow(
    work: Path, flags: list[str], expected: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "photos.png").mkdir()
    monkeypatch.setattr("mrdiff.cli.preview.run.run_preview", lambda *_: pytest.fail("too late"))
    assert run(*flags) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("mrdiff: error: ") or "preview: error: " in captured.err
    assert expected in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--output", "a.png"], "no --config given; shipped recipes: "),
        (["--config", "tiny.yaml"], "the following arguments are required: --output"),
        (["fit", "--config", "tiny.yaml", "--output", "a.png"], "unexpected argument fit"),
        (
            ["--config", "tiny.yaml", "--output", "a.png", "--data.sed", "1"],
            "unknown option --data.sed (did you mean --data.seed?)",
        ),
        (
            ["--config", "tiny.yaml", "--output", "a.png", "--data.train.path", "none"],
            "none: no such folder; give the folder of the clean photos",
        ),
    ],
)
def test_other_mistakes_are_one_line_too(
    work: Path, arguments: list[str], expected: str, capsys
) -> None:
    assert main.main(["preview", *arguments]) in (1, 2)
    assert expected in capsys.readouterr().err.splitlines()[-1]
    assert not (work / "a.png").exists()


def drawn(*samples: dict[str, Any]) -> Drawn:
    named = [{"name": str(i), **sample} for i, sample in enumerate(samples)]
    seconds = [0.002] * len(samples)
    return Drawn(
        role="train",
        length=9,
        tasks=(),
        samples=named,
        seconds=seconds,
    )


def pair(*, lq: float = 0.5, size: int = 8, **more: Any) -> dict[str, Any]:
    gt = torch.rand(3, size, size, generator=torch.Generator().manual_seed(size))
    return {"lq": (gt * lq), "gt": gt, **more}


HOLED = torch.ones(1, 8, 8).index_fill(2, torch.tensor([3]), 0.0)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([pair(lq=0.5), pair(lq=0.7)], None),
        ([pair(lq=1.0), pair(lq=0.7)], None),
        ([pair(mask=HOLED), pair(lq=0.7, mask=torch.ones(1, 8, 8))], None),
        ([pair(lq=1.0), pair(lq=1.0)], "lq is identical to gt in every sample"),
        ([pair(), pair()], "lq is the same picture in every sample"),
        ([pair(), pair(lq=0.0)], "lq is all black in 1 of the samples: 1"),
        ([pair(), pair(gt=torch.ones(3, 8, 8))], "gt has one value everywhere in 1 "),
        ([pair(lq=2.0), pair()], "lq leaves [0, 1] in 1 of the samples: 0"),
        ([pair(mask=torch.ones(1, 8, 8))], "mask has no hole in any sample"),
        ([pair(mask=torch.zeros(1, 8, 8))], "mask is all hole in every sample"),
        ([pair(mask=HOLED / 2)], "mask has values other than 0 and 1"),
    ],
)
def test_what_looks_wrong_is_said(samples: list[dict[str, Any]], expected: str | None) -> None:
    found = oddities(drawn(*samples))
    if expected is None:
        assert found == []
    else:
        assert any(line.startswith(expected) for line in found), found
    # Even so there is a sheet to look at, and a report.
    assert draw_sheet([drawn(*samples)]).shape[-1] > 160
    assert report(drawn(*samples))[0].startswith("train: 9 samples")


def test_warnings_reach_the_output(work: Path, capsys) -> None:
    assert run("--data.degradation.layers", "[0,0]", "--count", "2") == 0
    assert "\n  warning: lq is identical to gt in every sample" in capsys.readouterr().out


@pytest.mark.parametrize("role", ["train", "val"])
def test_a_class_that_breaks_the_rules_is_named_as_doctor_names_it(
    work: Path, role: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "mine_preview.py").write_text(
        "from datamodules.degradations import Degradation\n"
        "class Bytes(Degradation):\n"
        "    def degrade(self, image, generator): return (image * 255).byte()\n"
    )
    monkeypatch.syspath_prepend(work)
    wrong = [f"--data.{role}.init_args.degradation", "mine_preview.Bytes"]
    assert run(*wrong, "--set", "train") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    said = "mine_preview.Bytes returned uint8 [3, "
    assert said in line
    assert not (work / "sheet.png").exists()
    here = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--quick"]
    assert main.main(["doctor", "--config", "tiny.yaml", *wrong, *here]) == 1
    assert f"training does not start: {line.split('error: ')[1]}" in capsys.readouterr().out


def test_the_difference_is_amplified_about_grey() -> None:
    gt = torch.full((3, 10, 10), 0.5)
    lq = gt.clone()
    lq[:, :5] += 0.04
    lq[:, 5] -= 0.02
    picture, gain = difference(lq, gt)
    assert gain == 10
    assert torch.allclose(picture[:, :5], torch.tensor(0.9))
    assert torch.allclose(picture[:, 5], torch.tensor(0.3))
    assert torch.allclose(picture[:, 6:], torch.tensor(0.5))
    assert difference(gt, gt)[1] == 1


def test_tasks_are_named_and_counted(work: Path, capsys) -> None:
    kinds = {"rainy": "datamodules.degradations.Rain", "noisy": "datamodules.degradations.Noise"}
    tasks = {"class_path": "datamodules.degradations.Tasks", "init_args": {"kinds": kinds}}
    (work / "two.yaml").write_text(
        yaml.safe_dump({"data": {"degradation": tasks}}, sort_keys=False)
    )
    assert run("--config", "two.yaml", "--count", "6", "--set", "train") == 0
    rainy, noisy = map(
        int, re.findall(r"tasks (\d+) rainy, (\d+) noisy", capsys.readouterr().out)[0]
    )
    assert rainy + noisy == 6


def test_drawing_needs_no_worker_and_keeps_the_order(work: Path) -> None:
    data = made("--data.num_workers", "2")
    found = draw(data, data.train_dataloader(), "train", 3)
    keys = list(data.train_dataloader().sampler)[:3]
    assert [sample["name"] for sample in found.samples] == [str(key.item) for key in keys]


@pytest.mark.parametrize("recipe", ["derain", "universal", "wild"])
def test_the_sheet_is_the_same_whoever_degrades(work: Path, recipe: str) -> None:
    data = yaml.safe_load((ROOT / "configs" / f"{recipe}.yaml").read_text(encoding="utf-8"))["data"]
    overlay = {"base": "tiny.yaml", "data": {"degradation": data["degradation"]}}
    (work / "recipe.yaml").write_text(yaml.safe_dump(overlay))
    for road in ("workers", "device"):
        flags = ["--data.degrade_on", road, "--set", "train"]
        assert run(*flags, config="recipe.yaml", output=f"{road}.png") == 0
    assert (work / "workers.png").read_bytes() == (work / "device.png").read_bytes()


def _examples() -> list[str]:
    """The YAML of the docs, and the recipe they end with."""
    found = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    return [*found, (ROOT / "configs" / "wild.yaml").read_text(encoding="utf-8")]


@pytest.mark.parametrize("text", _examples(), ids=["chain", "resize", "wild"])
def test_the_yaml_of_the_docs_can_be_previewed(work: Path, text: str, capsys) -> None:
    degradation = yaml.safe_load(text)["data"]["degradation"]
    (work / "docs.yaml").write_text(yaml.safe_dump({"data": {"degradation": degradation}}))
    assert run("--config", "docs.yaml", "--count", "4", "--set", "train") == 0
    printed = capsys.readouterr().out
    assert "warning" not in printed
    low, _, high = numbers(printed, "psnr")
    assert 5 < low < high < 45
