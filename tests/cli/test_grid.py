"""mrdiff grid through its real flags: files, tables, routes, failures."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from mrdiff import MRProcess, MRSampler
from mrdiff.checkpoints.reading import load_model
from mrdiff.cli.common import paths
from mrdiff.cli.main import main
from mrdiff.metrics import psnr
from mrdiff.networks.unet import UNet
from mrdiff.photo import read_rgb
from mrdiff.solvers.presets import make_sampler
from mrdiff.system.names import METRICS, PAPER_SAMPLERS, SEARCH_METRICS, TUNED_SAMPLERS
from mrdiff.tuning.checkpoint_sampler import save_sampler
from mrdiff.tuning.search import NAMED_GRIDS
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
    given = [] if "--input" in arguments else ["--input", "lq"]
    fixed = ["grid", "--checkpoint", str(checkpoint), *given, "--output", output]
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
        "threshold": None,
        "average": False,
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


def solver(*flags: str, checkpoint: Path) -> dict[str, Any]:
    assert run(checkpoint, "--nfe", "2", "--images", "1", *flags) == 0
    return content()["made"]["solver"]


def test_the_sampler_is_the_one_that_is_named(work: Path, checkpoint: Path) -> None:
    made_of = partial(solver, "--metric", "psnr", "--reference", "gt", checkpoint=checkpoint)
    for name in ("fidelity", "perceptual", "consistency", "mr-sde-1"):
        own = make_sampler(name, nfe=2).options()
        assert made_of("--sampler", name) == {key: own[key] for key in made_of("--sampler", name)}
    found = made_of("--sampler", "fidelity")
    assert (found["average"], found["temperature"], found["order"]) == (True, 0.0, 1)
    assert made_of("--sampler", "perceptual", "--order", "3", "--temperature", "0.5") == {
        **made_of("--sampler", "perceptual"),
        "order": 3,
        "temperature": 0.5,
    }


def test_the_times_are_better_for_the_very_sampler(work: Path, checkpoint: Path) -> None:
    """What the table says of ``fidelity`` is what ``sample`` makes of the file."""
    flags = ("--sampler", "fidelity", "--metric", "psnr", "--reference", "gt", "--nfe", "3")
    assert run(checkpoint, *flags, "--crop", "64") == 0
    result = content()["made"]["results"][3]
    denoiser = load_model(checkpoint, device="cpu")
    names = sorted((work / "lq").rglob("*.*g"), key=lambda path: path.relative_to(work / "lq"))
    lq = torch.stack([read_rgb(path)[:, :, 4:44] for path in names])
    gt = [read_rgb(next((work / "gt").rglob(f"{path.stem}.*")))[:, :, 4:44] for path in names]
    for grid, value in (("grid.yaml", result["after"]), ("power(2)", result["before"]["power(2)"])):
        sampler = make_sampler("fidelity", nfe=3, grid=grid)
        with torch.no_grad():
            restored = sampler(denoiser, lq)
        assert float(psnr(restored, torch.stack(gt)).mean()) == pytest.approx(value, abs=1e-4)


def test_the_sampler_is_the_checkpoints_by_default(work: Path, checkpoint: Path, capsys) -> None:
    own = work / "own.ckpt"
    own.write_bytes(checkpoint.read_bytes())
    save_sampler(own, {"name": "perceptual", "nfe": 5, "temperature": 0.25})
    assert solver(checkpoint=own)["corrector"]
    assert content()["made"]["solver"]["temperature"] == 0.25
    assert not solver("--sampler", "mr-ode-3", checkpoint=own)["corrector"]
    save_sampler(own, {"name": "posterior", "nfe": 5})
    assert run(own) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the checkpoint's sampler: the times of a baseline are fixed: give --sampler" in error


def test_a_name_is_one_solver_at_every_nfe() -> None:
    for name in (*PAPER_SAMPLERS, *TUNED_SAMPLERS):
        made = [make_sampler(name, nfe=nfe).options() for nfe in range(1, 30)]
        assert all({**own, "nfe": 1, "grid": ""} == {**made[0], "grid": ""} for own in made)


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


def test_the_spectrum_chooses_where_a_state_is_noised_anew(work: Path, checkpoint: Path) -> None:
    flags = ("--spectrum", "--reference", "gt", "--sampler", "consistency")
    assert run(checkpoint, *flags) == 0
    made = content()["made"]
    assert made["solver"]["eta"] == float("inf")
    (result,) = made["results"].values()
    assert result["after"] <= min(result["before"].values())
    assert 0 < content()["times"][2][1] < 1


def test_unusable_photos_are_skipped_and_named(work: Path, checkpoint: Path, capsys) -> None:
    (work / "lq" / "aa.png").write_bytes(b"nothing")
    Image.new("RGB", (20, 20)).save(work / "lq" / "small.png")
    Image.new("RGB", (99, 99)).save(work / "gt" / "c.png")
    (work / "gt" / "b.png").unlink()
    assert run(checkpoint, "--spectrum", "--reference", "gt") == 0
    captured = capsys.readouterr()
    assert "left out: lq/aa.png: not an image that Pillow can read" in captured.err
    assert "left out: lq/small.png: smaller than 32 pixels" in captured.err
    assert "left out: gt/c.png: another size than lq/c.png" in captured.err
    assert "left out: lq/b.jpg: it has no reference" in captured.err
    assert "2 photos, crops of 40 x 40" in captured.out


def test_no_usable_photo_is_one_line(work: Path, checkpoint: Path, capsys) -> None:
    for path in (work / "lq").rglob("*.*g"):
        path.write_bytes(b"nothing")
    assert run(checkpoint) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "none of the 4 photos can be used: lq/a.png: not an image" in captured.err
    assert not Path("grid.yaml").exists()


def test_a_grid_is_refused_by_another_process(work: Path, checkpoint: Path) -> None:
    assert run(checkpoint, "--spectrum", "--reference", "gt") == 0
    with pytest.raises(ValueError, match=r"grid\.yaml: its times are of MRProcess"):
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
        (["--reference", "none"], "--reference none: no such file or folder"),
        (["--reference", "empty", "--spectrum"], "no file there has the stem of any input"),
        (["--input", "none"], "--input none: no such file or folder"),
        (["--input", "empty"], "--input empty: no images in this folder"),
        (["--output", "grid.txt"], "--output grid.txt: must be a .yaml file"),
        (["--checkpoint", "none.ckpt"], "no checkpoint at none.ckpt"),
        (["--checkpoint", "lq/a.png"], "lq/a.png is not a readable checkpoint"),
        (["--device", "nonsense"], "--device nonsense: "),
        (["--metric", "lpips", "--reference", "gt"], "give --lpips_weights FILE"),
        (["--sampler", "heun-ode"], "--sampler heun-ode: the times of a baseline are fixed"),
        (["--sampler", "fast"], "unknown sampler fast"),
        (["--sampler", "mr-sde-2"], "--sampler mr-sde-2 draws noise at every step"),
        (["--sampler", "consistency"], "--sampler consistency draws noise at every step"),
        (["--sampler", "consistency", "--prediction", "noise"], "eta must be finite with"),
        (["--sampler", "fidelity"], "fidelity averages its predictions, it has no solution"),
        (["--sampler", "fidelity", "--spectrum", "--reference", "gt"], "or --sampler mr-ode-2"),
        (["--sampler", "mr-sde-1", "--prediction", "velocity"], "eta must be 0"),
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
    def refuse(self: Path, **_: Any) -> None:  # tests may run as root, who may write anywhere
        assert self.parent == Path("there")
        raise PermissionError(13, "Permission denied", str(self))

    (work / "there").mkdir()
    monkeypatch.setattr(Path, "touch", refuse)
    assert run(checkpoint, "--checkpoint", "lq/a.png", output=f"{below}/g.yaml") == 2
    error = capsys.readouterr().err
    reason = f"--output {below}/g.yaml: cannot be written: Permission denied"
    assert error == f"mrdiff grid: error: {reason}\n"
    assert list((work / "there").iterdir()) == []


def test_trying_to_write_leaves_nothing_behind(work: Path) -> None:
    (work / "there").mkdir()
    paths.check_output(Path("there/a/b.yaml"), Path("there/a"))
    paths.check_output(Path("there/b.yaml"), Path("there"))
    paths.check_output(Path("b.yaml"), Path())
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


def test_a_search_is_by_known_metrics() -> None:
    assert {*SEARCH_METRICS} - {"distance"} <= {*METRICS}


def test_help_names_the_flags(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["grid", "--help"])
    assert stop.value.code == 0
    assert "--spectrum" in capsys.readouterr().out
