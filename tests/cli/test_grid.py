"""mrdiff grid through its real flags: files, tables, routes, failures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from mrdiff import MRProcess, MRSampler
from mrdiff.cli.common import outputs
from mrdiff.cli.grid import command as grid
from mrdiff.cli.main import main
from mrdiff.networks.unet import UNet
from mrdiff.tuning.search import NAMED_GRIDS, SEARCH_METRICS
from tests.tiny_model import write_pairs, write_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny network with random weights, so that it changes its input."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny.ckpt")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four degraded photos in ``lq`` and the ground truth in ``gt``."""
    write_pairs(tmp_path, ("a.png", "b.jpg", "c.png", "s/d.png"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MRDIFF_LPIPS_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path


def run(checkpoint: Path, *arguments: str, output: str = "grid.yaml") -> int:
    fixed = ["grid", "--checkpoint", str(checkpoint), "--input", "lq", "--output", output]
    nfes = ["2"] if "--spectrum" in arguments else ["2", "3"]
    return main([*fixed, "--device", "cpu", "--nfe", *nfes, *arguments])


def content(path: str = "grid.yaml") -> dict[str, Any]:
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def test_the_file_is_a_grid_and_says_how_it_was_made(work: Path, checkpoint: Path, capsys) -> None:
    assert run(checkpoint, "--corrector", "--seed", "3") == 0
    made = content()["made"]
    assert made["route"] == "distance"
    assert made["solver"] == {
        "eta": 0.0,
        "order": 2,
        "prediction": "data",
        "corrector": True,
        "temperature": 1.0,
    }
    assert (made["images"], made["crop"], made["seed"]) == (4, 40, 3)
    assert list(made["results"]) == [2, 3]
    for nfe, result in made["results"].items():
        assert list(result["before"]) == list(NAMED_GRIDS)
        assert result["after"] <= min(result["before"].values())
        sampler = MRSampler(nfe=nfe, grid="grid.yaml", corrector=True)
        assert sampler.times(MRProcess()).tolist() == content()["times"][nfe]
    assert str(work) not in Path("grid.yaml").read_text(encoding="utf-8")
    captured = capsys.readouterr()
    header = "nfe  uniform_log_snr  uniform_t  power(2)  optimised"
    assert header in captured.out
    number = r"\d+\.\d{3}"
    line = rf"^ +3 +{number} +{number} +{number} +{number} +[-+]\d+\.\d %$"
    assert re.search(line, captured.out, re.M)
    assert "4 photos, crops of 40 x 40 -> grid.yaml" in captured.out
    assert "nfe 3" in captured.err  # the progress bar


def test_the_result_is_repeatable(work: Path, checkpoint: Path) -> None:
    assert run(checkpoint, output="one.yaml") == run(checkpoint, output="two.yaml") == 0
    assert Path("one.yaml").read_bytes() == Path("two.yaml").read_bytes()
    assert run(checkpoint, "--seed", "1", "--nfe", "2", output="other.yaml") == 0
    assert content("other.yaml")["times"][2] != content("one.yaml")["times"][2]


@pytest.mark.parametrize("metric", ["psnr", "ssim"])
def test_a_metric_against_the_reference(work: Path, checkpoint: Path, metric: str, capsys) -> None:
    assert run(checkpoint, "--metric", metric, "--reference", "gt", "--images", "2") == 0
    made = content()["made"]
    assert (made["route"], made["images"]) == (metric, 2)
    for result in made["results"].values():
        assert result["after"] >= max(result["before"].values())
    assert f"{metric.upper()} against the reference" in capsys.readouterr().out


def test_the_spectrum_needs_no_network_call(
    work: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(UNet, "forward", None)
    assert run(checkpoint, "--spectrum", "--reference", "gt", "--crop", "32") == 0
    made = content()["made"]
    assert (made["route"], made["crop"]) == ("spectrum", 32)
    for result in made["results"].values():
        assert result["after"] <= min(result["before"].values())
    assert "error of the Gaussian model" in capsys.readouterr().out


def test_unusable_photos_are_skipped_and_named(work: Path, checkpoint: Path, capsys) -> None:
    (work / "lq" / "aa.png").write_bytes(b"nothing")
    Image.new("RGB", (20, 20)).save(work / "lq" / "small.png")
    Image.new("RGB", (99, 99)).save(work / "gt" / "c.png")
    (work / "gt" / "b.png").unlink()
    assert run(checkpoint, "--spectrum", "--reference", "gt") == 0
    captured = capsys.readouterr()
    assert "skipped: lq/aa.png: not an image that Pillow can read" in captured.err
    assert "skipped: lq/small.png: smaller than 32 pixels" in captured.err
    assert "skipped: gt/c.png: another size than lq/c.png" in captured.err
    assert "skipped: lq/b.jpg: it has no reference" in captured.err
    assert "2 photos, crops of 40 x 40" in captured.out


def test_no_usable_photo_is_one_line(work: Path, checkpoint: Path, capsys) -> None:
    for path in (work / "lq").rglob("*.*g"):
        path.write_bytes(b"nothing")
    assert run(checkpoint) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "--input lq: no usable photo: lq/a.png: not an image" in captured.err
    assert not Path("grid.yaml").exists()


def test_a_grid_is_refused_by_another_process(work: Path, checkpoint: Path) -> None:
    assert run(checkpoint, "--spectrum", "--reference", "gt") == 0
    with pytest.raises(ValueError, match=r"grid\.yaml: its times are of CosineTheta"):
        MRSampler(nfe=2, grid="grid.yaml").times(MRProcess(sigma_max=0.3))
    with pytest.raises(ValueError, match="no times for nfe=5, only for 2"):
        MRSampler(nfe=5, grid="grid.yaml").times(MRProcess())


def test_identical_pairs_have_no_spectrum(work: Path, checkpoint: Path, capsys) -> None:
    assert run(checkpoint, "--spectrum", "--reference", "lq") == 1
    assert "--reference lq: the residuals are zero everywhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--nfe", "1"], "argument --nfe: nfe lies in 2 to 10, got 1"),
        (["--nfe", "5", "11"], "argument --nfe: nfe lies in 2 to 10, got 11"),
        (["--nfe", "x"], "argument --nfe: nfe lies in 2 to 10, a whole number, got x"),
        (["--crop", "100.5"], "--crop: crop must be at least 32 px, a whole number, got 100.5"),
        (["--output", "lq/a.png/g.yaml"], "--output lq/a.png/g.yaml: lq/a.png is not a folder"),
        (["--crop", "16"], "argument --crop: crop must be at least 32 px, got 16"),
        (["--temperature", "2"], "argument --temperature: temperature lies in [0, 1], got 2"),
        (["--metric", "psnr"], "--metric psnr needs --reference"),
        (["--metric", "fid"], "argument --metric: invalid choice"),
        (["--spectrum"], "--spectrum needs --reference"),
        (["--spectrum", "--metric", "psnr"], "--spectrum has an error of its own"),
        (["--reference", "none"], "--reference none: no such folder"),
        (["--reference", "empty", "--spectrum"], "no file there has the stem of any input"),
        (["--input", "none"], "--input none: no such file or folder"),
        (["--input", "empty"], "--input empty: no images in this folder"),
        (["--output", "grid.txt"], "--output grid.txt: must be a .yaml file"),
        (["--checkpoint", "none.ckpt"], "no checkpoint at none.ckpt"),
        (["--checkpoint", "lq/a.png"], "lq/a.png is not a readable checkpoint"),
        (["--device", "nonsense"], "--device nonsense: "),
        (["--metric", "lpips", "--reference", "gt"], "name them by --lpips_weights FILE"),
        (["--spektrum"], "unknown option --spektrum (did you mean --spectrum?)"),
    ],
)
def test_a_wrong_flag_is_one_line_and_status_2(
    work: Path, checkpoint: Path, arguments: list[str], expected: str, capsys
) -> None:
    (work / "empty").mkdir()
    assert run(checkpoint, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("mrdiff grid: error: ")
    assert expected in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("below", ["there", "there/not/yet"])
def test_a_folder_that_is_read_only_is_known_before_the_search(
    work: Path, checkpoint: Path, capsys, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    def refuse(**options: Any) -> None:  # tests may run as root, who may write anywhere
        assert Path(options["dir"]) == Path(below)
        raise PermissionError(13, "Permission denied", f"{below}/.mrdiff.x")

    (work / "there").mkdir()
    monkeypatch.setattr(outputs.tempfile, "NamedTemporaryFile", refuse)
    assert run(checkpoint, "--checkpoint", "lq/a.png", output=f"{below}/g.yaml") == 2
    error = capsys.readouterr().err
    reason = f"--output {below}/g.yaml: cannot be written: Permission denied"
    assert error == f"mrdiff grid: error: {reason}\n"
    assert list((work / "there").iterdir()) == []


def test_trying_to_write_leaves_nothing_behind(work: Path) -> None:
    (work / "there").mkdir()
    outputs.check_output(Path("there/a/b.yaml"), Path("there/a"))
    outputs.check_output(Path("there/b.yaml"), Path("there"))
    outputs.check_output(Path("b.yaml"), Path())
    assert sorted(path.name for path in work.rglob("there*")) == ["there"]
    assert list((work / "there").iterdir()) == []


def test_a_disk_that_is_full_at_the_end_is_told_by_the_users_name(
    work: Path, checkpoint: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", ".g.yaml.1.tmp")

    monkeypatch.setattr("mrdiff.system.files.os.replace", full)
    assert run(checkpoint, "--spectrum", "--reference", "gt", output="g.yaml") == 1
    assert capsys.readouterr().err.endswith("--output g.yaml: No space left on device\n")


def test_the_light_half_knows_the_metrics() -> None:
    assert grid.METRICS == SEARCH_METRICS


def test_help_names_the_flags(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["grid", "--help"])
    assert stop.value.code == 0
    assert "--spectrum" in capsys.readouterr().out
