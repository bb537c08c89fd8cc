"""sample.py through its real flags: files, folders, tables, comparisons, failures, determinism."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mrdiff.acceleration.ranges import save_ranges
from mrdiff.checkpoints import reading
from mrdiff.checkpoints.export import export_model
from mrdiff.cli import main
from mrdiff.cli.common.jobs import Job
from mrdiff.cli.sample import command as sample
from mrdiff.cli.sample import run as run_module
from mrdiff.cli.sample.pictures import comparison_paths
from mrdiff.cli.sample.table import Quality, format_table
from mrdiff.diffusion.process import MRProcess
from mrdiff.photo.sheets import side_by_side
from mrdiff.solvers.gridfile import write_grid
from mrdiff.system.names import SAMPLERS
from mrdiff.tuning.checkpoint_sampler import save_sampler
from tests.places import ROOT
from tests.tiny_model import write_pairs, write_tiny_checkpoint

SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny network with random weights, so that it changes its input."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny.ckpt")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Degraded photos of several kinds in ``lq`` and the ground truth in ``gt``."""
    write_pairs(tmp_path, ("a.png", "b.jpg", "s/c.png"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MRDIFF_LPIPS_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path


def run(checkpoint: Path, *arguments: str, source: str = "lq", output: str = "out") -> int:
    given = [] if "--input" in arguments else ["--input", source]
    fixed = ["--checkpoint", str(checkpoint), *given, "--output", output]
    return sample.main([*fixed, "--device", "cpu", "--nfe", "2", *arguments], program="sample.py")


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_folder_keeps_paths_kinds_and_sizes(work: Path, checkpoint: Path, capsys) -> None:
    assert run(checkpoint) == 0
    assert list(files(work / "out")) == ["a.png", "b.jpg", "s/c.png"]
    for name in files(work / "out"):
        with Image.open(work / "lq" / name) as before, Image.open(work / "out" / name) as after:
            assert (before.size, before.format) == (after.size, after.format)
    assert re.search(r"restored 3, skipped 0, failed 0 -> out", capsys.readouterr().out)


def test_bytes_depend_on_seed_and_name_alone(work: Path, checkpoint: Path) -> None:
    assert run(checkpoint) == 0
    whole = files(work / "out")
    assert run(checkpoint, "--batch_size", "3", output="batched") == 0
    assert files(work / "batched") == whole
    assert run(checkpoint, source="lq/s/c.png", output="alone") == 0
    assert files(work / "alone")["c.png"] == whole["s/c.png"]
    assert run(checkpoint, "--seed", "1", output="seeded") == 0
    assert files(work / "seeded")["a.png"] != whole["a.png"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_runs(work: Path, checkpoint: Path, sampler: str) -> None:
    assert run(checkpoint, "--sampler", sampler, source="lq/a.png") == 0


def test_grey_and_alpha_are_kept(work: Path, checkpoint: Path) -> None:
    with Image.open("lq/a.png") as photo:
        photo.convert("L").save("lq/grey.png")
        photo.putalpha(photo.convert("L"))
        photo.save("lq/alpha.png")
    assert run(checkpoint) == 0
    with Image.open("out/grey.png") as grey, Image.open("out/alpha.png") as alpha:
        assert (grey.mode, alpha.mode) == ("L", "RGBA")
        with Image.open("lq/alpha.png") as before:
            assert alpha.getchannel("A").tobytes() == before.getchannel("A").tobytes()


def test_a_broken_file_is_named_and_the_rest_goes_on(work: Path, checkpoint: Path, capsys) -> None:
    (work / "lq" / "aa.png").write_bytes(b"nothing")
    assert run(checkpoint) == 1
    assert list(files(work / "out")) == ["a.png", "b.jpg", "s/c.png"]
    captured = capsys.readouterr()
    assert "failed: lq/aa.png: not an image that Pillow can read" in captured.err
    assert "restored 3, skipped 0, failed 1" in captured.out


def test_a_log_has_a_line_for_each_photo(work: Path, checkpoint: Path) -> None:
    (work / "lq" / "z.png").write_bytes(b"no image")
    assert run(checkpoint, "--log", "log.jsonl", "--reference", "gt", "--tile", "64") == 1
    lines = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    lines.sort(key=lambda line: line["file"])
    assert [line["file"] for line in lines] == ["lq/a.png", "lq/b.jpg", "lq/s/c.png", "lq/z.png"]
    for line in lines[:3]:
        assert (line["nfe"], line["tile"]) == (2, 64)
        assert 0 < line["seconds"] < 60
        assert 5 < line["psnr"] < 60
        assert Path(line["output"]).is_file()
    assert "not an image" in lines[3]["error"]
    assert run(checkpoint, "--log", "log.jsonl", "--skip_existing") == 1
    assert len((work / "log.jsonl").read_text().splitlines()) == 5  # z.png is tried again


def test_the_flags_stand_in_groups() -> None:
    text = sample.make_parser("sample.py").format_help()
    for heading in ("input and output", "model", "sampler", "speed", "report"):
        assert f"\n{heading}:\n" in text
    assert text.split("input and output:")[0].count("\n  -") == 1  # none but --help is outside


def test_one_photo_through_a_pipe(work: Path, checkpoint: Path) -> None:
    assert run(checkpoint) == 0
    command = [sys.executable, str(ROOT / "sample.py"), "--checkpoint", str(checkpoint)]
    command += ["--device", "cpu", "--nfe", "2", "--output", "-", "--input"]
    (work / "stdin.png").write_bytes((work / "lq" / "a.png").read_bytes())
    assert run(checkpoint, source="stdin.png") == 0
    content = (work / "lq" / "a.png").read_bytes()
    done = subprocess.run([*command, "-"], input=content, capture_output=True, check=True)
    assert done.stdout == (work / "out" / "stdin.png").read_bytes()
    done = subprocess.run([*command, "lq/b.jpg"], capture_output=True, check=True)
    assert done.stdout == (work / "out" / "b.jpg").read_bytes()
    done = subprocess.run([*command, "-"], input=b"no", capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"standard input: not an image" in done.stderr


def test_what_a_pipes_format_cannot_hold_is_one_line(
    work: Path, checkpoint: Path, capsysbinary
) -> None:
    Image.new("RGBA", (48, 40)).save("lq/alpha.png")
    assert run(checkpoint, "--format", "bmp", source="lq/alpha.png", output="-") == 1
    assert b"--output -: a BMP cannot hold transparency" in capsysbinary.readouterr().err
    assert run(checkpoint, "--format", "jpg", source="lq/alpha.png", output="-") == 0
    said = capsysbinary.readouterr()
    assert b"note: transparency was laid on white" in said.err
    assert said.out.startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input", "-", "--output", "out"], "--input -|FILE --output -"),
        (["--input", "lq", "--output", "-"], "--input -|FILE --output -"),
        (["--input", "-", "--output", "-", "--compare"], "--compare is for files"),
        (["--input", "-", "--output", "-", "--samples", "2"], "--samples is for files"),
    ],
)
def test_what_a_pipe_cannot_do(work: Path, checkpoint: Path, flags, message, capsys) -> None:
    arguments = ["--checkpoint", str(checkpoint), *flags]
    assert sample.main(arguments, program="sample.py") == 2
    assert message in capsys.readouterr().err


def test_local_pooling_needs_global_averages(work: Path, checkpoint: Path, capsys) -> None:
    assert run(checkpoint, "--local_pooling", "64") == 2
    assert "no global average" in capsys.readouterr().err


def test_several_samples_give_a_mean_and_a_map(work: Path, checkpoint: Path, capsys) -> None:
    several = ("--sampler", "mr-sde-1", "--samples", "3")
    assert run(checkpoint, *several) == 0
    maps = [path for path in files(work / "out") if path.startswith("uncertainty/")]
    names = ("a.png", "b.jpg", "s/c.png")
    assert maps == sorted(f"uncertainty/{n}.{kind}" for n in names for kind in ("png", "tif"))
    with Image.open(work / "out" / "uncertainty" / "s" / "c.png.tif") as opened:
        assert (opened.mode, opened.size) == ("F", (48, 40))
        assert 0 < np.asarray(opened).mean() < 0.5
    assert run(checkpoint, "--sampler", "fidelity", "--samples", "3") == 2
    assert "use another, such as perceptual" in capsys.readouterr().err


def test_existing_files_are_skipped_on_request(work: Path, checkpoint: Path, capsys) -> None:
    assert run(checkpoint) == 0
    (work / "out" / "b.jpg").unlink()
    before = (work / "out" / "a.png").stat().st_mtime_ns
    assert run(checkpoint, "--skip_existing") == 0
    assert "restored 1, skipped 2, failed 0" in capsys.readouterr().out
    assert (work / "out" / "a.png").stat().st_mtime_ns == before


def test_a_reference_gives_a_table_and_the_gain(work: Path, checkpoint: Path, capsys) -> None:
    assert run(checkpoint, "--reference", "gt") == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].split() == ["PSNR", "SSIM", "PSNR-Y", "SSIM-Y"]
    for name in ("a.png", "b.jpg", "s/c.png", "mean"):
        assert re.search(rf"^{name} +\d+\.\d\d -> \d+\.\d\d +0\.\d{{4}} -> ", printed, re.M)
    gain = re.search(r"mean PSNR (\S+) -> (\S+) \((\S+) dB\)", printed)
    assert gain is not None
    assert float(gain[3]) == pytest.approx(float(gain[2]) - float(gain[1]), abs=0.011)
    # The number is that of the written file.
    pixels = [np.asarray(Image.open(work / d / "a.png"), dtype=float) for d in ("out", "gt")]
    psnr = 10 * np.log10(255**2 / np.square(pixels[0] - pixels[1]).mean())
    assert f"-> {psnr:.2f}" in next(line for line in lines if line.startswith("a.png"))


def test_references_that_do_not_fit_are_named(work: Path, checkpoint: Path, capsys) -> None:
    Image.new("RGB", (9, 9)).save(work / "gt" / "a.png")
    (work / "gt" / "b.png").unlink()
    assert run(checkpoint, "--reference", "gt") == 1
    captured = capsys.readouterr()
    assert "failed: gt/a.png: size 9 x 9, but lq/a.png has 48 x 40" in captured.err
    assert "1 photos have no reference in gt" in captured.out


def test_comparisons_are_side_by_side(work: Path, checkpoint: Path) -> None:
    assert run(checkpoint, "--reference", "gt", "--compare") == 0
    for name in ("a.png", "b.png", "s/c.png"):
        with Image.open(work / "out" / "compare" / name) as picture:
            assert picture.size == (3 * 48 + 2 * 8, 40 + 20)
    assert run(checkpoint, "--compare") == 0  # its own pictures are no inputs
    with Image.open(work / "out" / "compare" / "a.png") as picture:
        assert picture.size == (2 * 48 + 8, 40 + 20)


def test_trajectories_are_written(work: Path, checkpoint: Path, capsys) -> None:
    assert run(checkpoint, "--reference", "gt", "--trajectory") == 0
    photos = ("a.png", "b.jpg", "s/c.png")
    names = [f"{photo}/{kind}.png" for photo in photos for kind in ("pca", "strip")]
    assert list(files(work / "out" / "trajectory")) == names
    (work / "out" / "trajectory" / "a.png" / "strip.png").unlink()
    before = files(work / "out" / "trajectory")
    assert run(checkpoint, "--reference", "gt", "--trajectory", "--skip_existing") == 0
    after = files(work / "out" / "trajectory")
    assert list(after) == names
    assert before.items() <= after.items()


def test_pictures_of_photos_alike_in_name_are_apart(work: Path, checkpoint: Path) -> None:
    for name in ("same.jpg", "same.png", "x.png", "x_pca.png"):
        Image.effect_noise((48, 40), 50).convert("RGB").save(work / "lq" / "s" / name)
    flags = ["--compare", "--trajectory", "--skip_existing"]
    assert run(checkpoint, *flags, source="lq/s") == 0
    compared = ["c.png", "same.jpg.png", "same.png.png", "x.png", "x_pca.png"]
    before = files(work / "out")
    assert [name for name in before if name.startswith("compare/")] == [
        f"compare/{name}" for name in compared
    ]
    photos = ["c.png", "same.jpg", "same.png", "x.png", "x_pca.png"]
    assert len({before[f"trajectory/{name}/strip.png"] for name in photos}) == 5
    for name in ("compare/same.jpg.png", "trajectory/same.png/strip.png"):
        (work / "out" / name).write_bytes(b"kept")
    (work / "out" / "compare" / "same.png.png").unlink()
    assert run(checkpoint, *flags, source="lq/s") == 0
    kept = dict.fromkeys(("compare/same.jpg.png", "trajectory/same.png/strip.png"), b"kept")
    assert files(work / "out") == before | kept


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["a.jpg", "b.png", "s/a.png"], ["a.png", "b.png", "s/a.png"]),
        (["a.jpg", "a.jpeg", "b.jpg"], ["a.jpg.png", "a.jpeg.png", "b.png"]),
        # Not even a whole name is anyone else's.
        (["a.jpg", "a.png", "a.jpg.png"], ["a.jpg.png", "a.png.png", "a.jpg.png.png"]),
    ],
)
def test_names_of_comparisons(targets: list[str], expected: list[str]) -> None:
    out = Path("out")
    jobs = [Job(Path("lq") / name, Path(name), target=out / name) for name in targets]
    assert list(comparison_paths(jobs, out).values()) == [out / "compare" / e for e in expected]


def test_panels_hold_the_images_under_their_labels() -> None:
    red, small = torch.zeros(3, 40, 50), torch.zeros(3, 30, 20)
    picture = side_by_side([red, small], ["one", "two"])
    assert picture[:, 20:60, :50].eq(0).all()
    assert picture[:, 20:50, 58:].eq(0).all()
    assert picture[:, 50:, 58:].eq(1).all()
    assert picture[:, :20, :50].min() < 0.5  # letters


def test_table_means_and_lpips() -> None:
    rows = [
        Quality("a", {"psnr": 10.0, "lpips": 0.5}, {"psnr": 14.0, "lpips": 0.25}),
        Quality("b", {"psnr": 20.0, "lpips": 0.7}, {"psnr": 22.0, "lpips": 0.55}),
    ]
    lines = format_table(rows).splitlines()
    assert lines[-2:] == [
        "mean PSNR 15.00 -> 18.00 (+3.00 dB)",
        "mean LPIPS 0.600 -> 0.400 (-0.200)",
    ]
    assert len({len(line) for line in lines[:6]}) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--sampler", "mr-ode2"], "unknown sampler mr-ode2 (did you mean mr-ode-2?)"),
        (["--nfe", "0"], "argument --nfe: must be at least 1, got 0"),
        (["--nfe", "x"], "argument --nfe: must be at least 1, a whole number, got x"),
        (["--tile", "of"], "tile must be auto, off or a side of at least 64 pixels, got of"),
        (["--device", "nonsense"], "--device nonsense: "),
        (["--reference", "none"], "--reference none: no such file or folder"),
        (["--input", "none"], "--input none: no such file or folder"),
        (["--input", "empty"], "--input empty: no images in this folder"),
        (["--output", "lq"], "--output would overwrite lq/a.png: choose another"),
        (["--output", "x.png"], "--output x.png: must be a folder"),
        (["--output", "x.TIFF"], "--output x.TIFF: must be a folder"),
        (["--output", "x.mp4"], "--output x.mp4: must be a folder"),
        (["--checkpoint", "none.ckpt"], "no checkpoint at none.ckpt"),
        (["--checkpoint", "lq/a.png"], "lq/a.png is not a readable checkpoint"),
    ],
)
def test_a_wrong_flag_is_one_line_and_status_2(
    work: Path, checkpoint: Path, arguments: list[str], expected: str, capsys
) -> None:
    (work / "empty").mkdir()
    assert run(checkpoint, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("sample.py: error: ")
    assert expected in captured.err
    assert captured.out == ""


def test_missing_lpips_weights_are_one_line(work: Path, checkpoint: Path, capsys) -> None:
    assert run(checkpoint, "--reference", "gt", "--lpips_weights", "none.pth") == 1
    assert "none.pth" in capsys.readouterr().err


def test_an_exported_model_gives_the_same_bytes(work: Path, checkpoint: Path, capsys) -> None:
    export = ["export", "--checkpoint", str(checkpoint), "--output", "exported"]
    assert main.main(export) == 0
    assert run(checkpoint) == 0
    assert run(work / "exported", output="again") == 0
    assert files(work / "again") == files(work / "out")
    assert main.main(export) == 1
    assert "exists and is not an empty folder" in capsys.readouterr().err


def test_the_script_itself(work: Path, checkpoint: Path) -> None:
    command = [sys.executable, str(ROOT / "sample.py"), "--checkpoint", str(checkpoint)]
    flags = ["--input", "lq", "--output", "out", "--nfe", "1", "--reference", "gt"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mean PSNR" in done.stdout
    assert list(files(work / "out")) == ["a.png", "b.jpg", "s/c.png"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared photos are not beside this checkout")
def test_real_photos_with_lpips(checkpoint: Path, tmp_path: Path, capsys) -> None:
    rainy = SHARED / "data" / "paired" / "rainy"
    weights = next(iter(sorted((SHARED / "lpips").glob("*.pt*"))), None)
    photo = sorted((rainy / "LQ").iterdir())[0]
    flags = ["--nfe", "1", "--reference", str(rainy / "GT")]
    if weights is not None:
        flags += ["--lpips_weights", str(weights)]
    assert run(checkpoint, *flags, source=str(photo), output=str(tmp_path / "out")) == 0
    assert ("mean LPIPS" in capsys.readouterr().out) == (weights is not None)


def test_grid_and_temperature_reach_the_sampler(work: Path, checkpoint: Path) -> None:
    write_grid(work / "own.yaml", {2: [1.0, 0.6, 0.0]}, MRProcess(), made={})
    results = {}
    for name, flags in {
        "plain": [],
        "cold": ["--temperature", "0"],
        "file": ["--grid", "own.yaml"],
        "named": ["--grid", "power(2)"],
    }.items():
        assert run(checkpoint, *flags, source="lq/a.png", output=name) == 0
        results[name] = (work / name / "a.png").read_bytes()
    assert len(set(results.values())) == 4
    # Without noise the seed does not matter.
    assert run(checkpoint, "--temperature", "0", "--seed", "9", source="lq/a.png") == 0
    assert (work / "out" / "a.png").read_bytes() == results["cold"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--grid", "powr"], "unknown grid 'powr'"),
        (["--grid", "none.yaml"], "none.yaml: No such file"),
        (["--grid", "own.yaml"], "no times for nfe=2, only for 3"),
        (["--grid", "uniform_t", "--sampler", "posterior"], "a grid is for the mr samplers"),
        (["--temperature", "1.5"], "temperature lies in [0, 1], got 1.5"),
        (["--temperature", "cold"], "temperature lies in [0, 1], got cold"),
    ],
)
def test_wrong_grids_and_temperatures_are_one_line(
    work: Path, checkpoint: Path, capsys, flags: list[str], message: str
) -> None:
    write_grid(work / "own.yaml", {3: [1.0, 0.6, 0.1, 0.0]}, MRProcess(), made={})
    assert run(checkpoint, *flags) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not (work / "out").exists()


def test_the_checkpoints_sampler_is_the_default(work: Path, checkpoint: Path) -> None:
    saved = work / "saved.ckpt"
    saved.write_bytes(checkpoint.read_bytes())
    save_sampler(saved, {"name": "fidelity", "nfe": 2})
    assert run(saved, source="lq/a.png", output="default") == 0
    assert run(checkpoint, "--sampler", "fidelity", source="lq/a.png", output="named") == 0
    assert files(work / "default") == files(work / "named")


@pytest.mark.parametrize("exported", [False, True])
def test_the_checkpoint_is_opened_once(
    work: Path, checkpoint: Path, exported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the model, its sampler and its 8-bit ranges."""
    source = work / "saved.ckpt"
    source.write_bytes(checkpoint.read_bytes())
    save_sampler(source, {"name": "fidelity", "nfe": 2})
    save_ranges(source, {"any": (-1.0, 1.0)})
    if exported:
        export_model(source, work / "exported")
        source = work / "exported"
    opened = []

    def counting(read):
        return lambda *arguments, **options: opened.append(read) or read(*arguments, **options)

    monkeypatch.setattr(torch, "load", counting(torch.load))
    monkeypatch.setattr(reading, "load_file", counting(reading.load_file))
    monkeypatch.setattr(run_module, "OpenVINONetwork", lambda network, **_: network)
    int8 = ("--backend", "openvino", "--precision", "int8")
    assert run(source, *int8, "--trajectory", source="lq/a.png") == 0
    assert len(opened) == 1


def test_two_processes_write_what_one_writes(work: Path, checkpoint: Path) -> None:
    (work / "lq" / "broken.png").write_bytes(b"no image")
    assert run(checkpoint, output="one") == 1
    command = [sys.executable, str(ROOT / "sample.py"), "--checkpoint", str(checkpoint)]
    command += ["--input", "lq", "--output", "two", "--device", "cpu", "--nfe", "2"]
    command += ["--devices", "2", "--reference", "gt", "--log", "log.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1, done.stderr
    assert files(work / "two") == files(work / "one")
    assert done.stdout.count("restored 3, skipped 0, failed 1") == 1
    assert done.stdout.count("mean PSNR") == 1
    assert done.stderr.count("failed: lq/broken.png: not an image") == 1
    logged = [json.loads(line)["file"] for line in (work / "log.jsonl").read_text().splitlines()]
    assert sorted(logged) == ["lq/a.png", "lq/b.jpg", "lq/broken.png", "lq/s/c.png"]


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, checkpoint: Path) -> None:
    write_pairs(tmp_path, [f"{index:02d}.png" for index in range(60)])
    command = [sys.executable, str(ROOT / "sample.py"), "--checkpoint", str(checkpoint)]
    command += ["--input", str(tmp_path / "lq"), "--output", str(tmp_path / "out")]
    command += ["--device", "cpu", "--nfe", "20", "--skip_existing"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while len(list((tmp_path / "out").glob("*.png"))) < 5 and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = files(tmp_path / "out")
    done = {name for name in before if name.endswith(".png")}
    assert 5 <= len(done) < 60
    for name in done:
        Image.open(tmp_path / "out" / name).load()  # whole
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"restored {60 - len(done)}, skipped {len(done)}, failed 0" in again.stdout
    after = files(tmp_path / "out")  # nothing half-written is left
    assert len(after) == 60
    assert all(after[name] == before[name] for name in done)


def test_the_report_holds_all_it_shows(work: Path, checkpoint: Path, capsys) -> None:
    (work / "lq" / "<b>&.png").write_bytes((work / "lq" / "a.png").read_bytes())
    (work / "gt" / "<b>&.png").write_bytes((work / "gt" / "a.png").read_bytes())
    assert run(checkpoint, "--reference", "gt", "--report", "pages/report.html") == 0
    page = (work / "pages" / "report.html").read_text()
    assert page.count('<section class="photo"') == 4
    assert page.count("data:image/jpeg;base64,") == 4 * 4
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # nothing is fetched
    assert "&lt;b&gt;&amp;.png" in page
    assert "<b>&" not in page
    table = capsys.readouterr().out
    mean = re.search(r"mean PSNR (\S+) -> (\S+)", table)
    assert mean is not None
    for value in mean.groups():
        assert f">{value}</td>" in page.split("<tfoot>")[1]
    columns = [int(number) for number in re.findall(r'data-column="(\d+)"', page)]
    assert columns == list(range(1 + 3 * 4))  # the photo, and three of each metric
    assert "Gaussian window of 11 pixels" in page
    assert run(checkpoint, "--report", "report.html") == 2
    assert "--report needs --reference" in capsys.readouterr().err
