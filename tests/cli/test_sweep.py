"""mrdiff sweep: what is tried, the files it writes, and that its words follow from its CSV."""

import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mrdiff.checkpoints.export import export_model
from mrdiff.cli.common import paths
from mrdiff.cli.sample import command as sample
from mrdiff.cli.sweep import command as sweep
from mrdiff.cli.sweep import run as sweeping
from mrdiff.cli.sweep.candidates import DEFAULTS, Candidate, candidates
from mrdiff.cli.sweep.plot import draw
from mrdiff.cli.sweep.report import flags, format_table, recommend, words
from mrdiff.cli.sweep.rows import SETTINGS, Row, read_csv, write_csv
from mrdiff.diffusion.process import MRProcess
from mrdiff.solvers import timegrid
from mrdiff.solvers.gridfile import write_grid
from mrdiff.solvers.presets import make_sampler
from mrdiff.system.names import GRIDS, SAMPLERS
from mrdiff.tuning.checkpoint_sampler import read_sampler
from tests.places import ROOT
from tests.tiny_model import write_pairs, write_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny network with random weights, so that samplers differ."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny.ckpt")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six pairs of 40 x 48 px in ``lq`` and ``gt``."""
    write_pairs(tmp_path, (f"{name}.png" for name in "abcdef"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MRDIFF_LPIPS_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path


FEW = ("--nfe", "1", "2", "--images", "2", "--sampler", "mr-ode-1", "fidelity", "posterior")


def run(checkpoint: Path, *arguments: str, output: str = "out") -> int:
    given = [] if "--input" in arguments else ["--input", "lq"]
    fixed = ["--checkpoint", str(checkpoint), *given, "--reference", "gt"]
    return sweep.main([*fixed, "--output", output, "--device", "cpu", *arguments])


def make_truth(checkpoint: Path, *given: str) -> None:
    """References that the network comes nearer to than the degraded photos are."""
    flags = [*(given or ("--sampler", "mr-ode-3", "--nfe", "9")), "--device", "cpu"]
    paths = ["--checkpoint", str(checkpoint), "--input", "lq", "--output", "gt"]
    assert sample.main([*paths, *flags]) == 0


def row(label: str, nfe: int, *values: float, metric: str = "psnr", seconds: float = 0.1) -> Row:
    """A row of a sampler by its own options."""
    name = label.split()[0] if nfe else ""
    settings = dict.fromkeys(SETTINGS, "")
    if nfe:
        own = make_sampler(name, nfe=nfe)
        for setting in SETTINGS:
            settings[setting] = str(getattr(own, setting, ""))
    return Row(label, nfe, name, settings, seconds, {metric: tuple(values)})


def test_names_spelt_out_are_the_real_ones() -> None:
    assert tuple(timegrid._NAMED) == GRIDS
    assert {candidate.sampler for candidate in DEFAULTS} <= set(SAMPLERS)


def test_the_default_selection_is_affordable() -> None:
    # 4 pairs at 35 ms a call on two cores, as a 1.8 M parameter U-Net costs on 256 x 256 px
    calls = 4 * len(DEFAULTS) * sum(sweep._NFES)
    assert calls * 0.035 < 180
    assert len({candidate.label for candidate in DEFAULTS}) == len(DEFAULTS)


def test_candidates_are_combinations() -> None:
    assert candidates((), (), ()) == DEFAULTS
    assert [one.label for one in candidates(("mr-ode-2", "posterior"), ("power(2)",), (1, 0))] == [
        *("mr-ode-2 power(2)", "mr-ode-2 power(2) tau=0", "posterior", "posterior tau=0")
    ]
    assert candidates(("mr-ode-2",), ("uniform_log_snr",), (1,)) == (Candidate("mr-ode-2"),)
    middle = candidates(("consistency",), ("uniform_angle(0.05)", "uniform_angle(0.2)"), ())
    assert [one.label for one in middle] == [
        *("consistency uniform_angle(0.05)", "consistency uniform_angle(0.2)")
    ]
    assert [one.label for one in candidates((), ("a/own.yaml",), ())] == [
        *("mr-ode-2 own.yaml", "perceptual own.yaml")
    ]


def test_help_and_wrong_paths_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from mrdiff.cli.sweep import command\n"
        "status = command.main('--checkpoint no --input a --reference b --output c'.split())\n"
        "print(status, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["2", "False"]
    assert done.stderr == "mrdiff sweep: error: no checkpoint at no\n"


def test_the_command_itself(work: Path, checkpoint: Path) -> None:
    command = [sys.executable, "-m", "mrdiff", "sweep", "--checkpoint", str(checkpoint)]
    paths = ["--input", "lq", "--reference", "gt", "--output", "out"]
    done = subprocess.run([*command, *paths, *FEW], capture_output=True, text=True, cwd=work)
    assert done.returncode == 0, done.stderr
    assert "Recommended by PSNR: " in done.stdout
    assert sorted(path.name for path in (work / "out").iterdir()) == [
        *("recommendation.txt", "sweep.csv", "sweep.png")
    ]


def test_the_recommendation_is_what_the_csv_says(work: Path, checkpoint: Path, capsys) -> None:
    assert run(checkpoint, *FEW) == 0
    printed = capsys.readouterr().out
    rows = read_csv(work / "out" / "sweep.csv")
    # the input, three samplers at two NFE, and the default for comparison
    assert [(r.label, r.nfe) for r in rows if r.nfe != 2] == [
        *(("input", 0), ("mr-ode-1", 1), ("fidelity", 1), ("posterior", 1), ("mr-ode-2", 5))
    ]
    text = words(recommend(rows, "psnr"), checkpoint=str(checkpoint))
    assert text in printed
    assert (work / "out" / "recommendation.txt").read_text().endswith(f"\n\n{text}\n")
    # The same by hand: the fewest calls within 0.1 dB of the best mean.
    runs = [r for r in rows if r.nfe]
    top = max(np.mean(r.scores["psnr"]) for r in runs)
    near = [r for r in runs if top - np.mean(r.scores["psnr"]) <= 0.1]
    chosen = min(near, key=lambda r: (r.nfe, -np.mean(r.scores["psnr"])))
    assert f"Recommended by PSNR: {chosen} (" in text
    assert shown_flags(text) == flags(chosen)


def shown_flags(text: str) -> list[str]:
    """The sampler's flags of the command line that the words show."""
    command = next(line for line in text.splitlines() if "sample.py" in line)
    return command.partition(" --output RESTORED ")[2].split()


def test_a_csv_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [row("input", 0, 10.0, 11.5), row("mr-ode-2 tau=0", 5, 20.123456, float("inf"))]
    write_csv(tmp_path / "new" / "sweep.csv", rows)
    assert read_csv(tmp_path / "new" / "sweep.csv") == rows
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sweep.csv"]


def test_numbers_are_those_of_sample(work: Path, checkpoint: Path) -> None:
    with Image.open("lq/c.png") as photo:
        photo.convert("L").save("lq/c.png")
    tried = ("--sampler", "mr-sde-2", "--nfe", "2", "--images", "6", "--seed", "3")
    assert run(checkpoint, *tried) == 0
    flags = ["--checkpoint", str(checkpoint), "--input", "lq", "--output", "restored"]
    assert sample.main([*flags, *tried[:4], "--seed", "3", "--device", "cpu"]) == 0
    (swept,) = [r for r in read_csv(work / "out" / "sweep.csv") if r.nfe == 2]
    for name, value in zip("abcdef", swept.scores["psnr"], strict=True):
        restored, clean = (
            np.asarray(Image.open(work / folder / f"{name}.png").convert("RGB"), dtype=float)
            for folder in ("restored", "gt")
        )
        assert value == pytest.approx(10 * np.log10(255**2 / np.square(restored - clean).mean()))


def test_crops_are_central_and_pairs_spread_evenly(work: Path, checkpoint: Path) -> None:
    assert (
        run(checkpoint, "--nfe", "1", "--sampler", "mr-ode-1", "--images", "2", "--crop", "32") == 0
    )
    (before,) = [r for r in read_csv(work / "out" / "sweep.csv") if not r.nfe]
    expected = []
    for name in "be":
        lq, gt = (
            np.asarray(Image.open(f"{f}/{name}.png"), float)[4:36, 8:40] for f in ("lq", "gt")
        )
        expected.append(10 * np.log10(255**2 / np.square(lq - gt).mean()))
    assert before.scores["psnr"] == pytest.approx(expected, abs=1e-5)


def test_pairs_that_cannot_be_used_are_named(work: Path, checkpoint: Path, capsys) -> None:
    (work / "gt" / "a.png").unlink()
    (work / "lq" / "b.png").write_bytes(b"nothing")
    Image.new("RGB", (9, 9)).save(work / "gt" / "c.png")
    assert run(checkpoint, *FEW, "--images", "9") == 0
    error = capsys.readouterr().err
    assert "left out: lq/b.png: not an image that Pillow can read" in error
    assert "left out: gt/c.png: another size than lq/c.png: 9 x 9, not 48 x 40" in error
    assert {len(r.scores["psnr"]) for r in read_csv(work / "out" / "sweep.csv")} == {3}
    for name in "def":
        (work / "lq" / f"{name}.png").write_bytes(b"nothing")
    assert run(checkpoint, *FEW, "--images", "9", output="none") == 1
    assert "error: none of the 5 photos can be used" in capsys.readouterr().err
    assert not (work / "none").exists()


@pytest.mark.parametrize("exported", [False, True])
def test_save_makes_it_the_default_of_sample(
    work: Path, checkpoint: Path, capsys, exported: bool
) -> None:
    model = work / "copy.ckpt"
    model.write_bytes(checkpoint.read_bytes())
    if exported:
        export_model(model, work / "copy")
        model = work / "copy"
    make_truth(checkpoint)
    assert run(model, *FEW, "--temperature", "0.5") == 0
    assert "add --save" in capsys.readouterr().out
    assert read_sampler(model) is None
    assert run(model, *FEW, "--temperature", "0.5", "--save") == 0
    printed = capsys.readouterr().out
    chosen = recommend(read_csv(work / "out" / "sweep.csv"), "psnr").choice
    assert f"saved in {model}: sample.py uses {chosen} by default" in printed
    common = ["--checkpoint", str(model), "--input", "lq/a.png", "--device", "cpu", "--output"]
    assert sample.main([*common, "plain"]) == 0
    assert sample.main([*common, "flags", *shown_flags(printed)]) == 0
    assert (work / "plain/a.png").read_bytes() == (work / "flags/a.png").read_bytes()


def test_a_grid_file_is_swept_and_saved_by_its_times(work: Path, checkpoint: Path, capsys) -> None:
    model, grid = work / "copy.ckpt", work / "own.yaml"
    model.write_bytes(checkpoint.read_bytes())
    write_grid(grid, {2: [1.0, 0.6, 0.0]}, MRProcess(), made={})
    make_truth(checkpoint, "--sampler", "perceptual", "--grid", "own.yaml", "--nfe", "2")
    tried = ("--sampler", "perceptual", "--grid", "own.yaml", "--nfe", "2", "3", "--images", "1")
    assert run(model, *tried, "--budget", "2", "--save") == 0
    captured = capsys.readouterr()
    assert captured.err.count("left out: own.yaml has no times for NFE 3") == 1
    assert "--sampler perceptual --nfe 2 --grid own.yaml" in captured.out
    assert "One image decides little" in captured.out
    grid.unlink()
    stored = read_sampler(model)
    assert stored is not None
    assert make_sampler(stored).times(MRProcess()).tolist() == [1.0, 0.6, 0.0]


def test_what_does_not_improve_the_input_is_not_saved(work: Path, checkpoint: Path, capsys) -> None:
    model = work / "copy.ckpt"
    model.write_bytes(checkpoint.read_bytes())
    for name in "abcdef":  # a grey level is little to restore, and the network is random
        with Image.open(work / "gt" / f"{name}.png") as clean:
            clean.point(lambda level: min(255, level + 1)).save(work / "lq" / f"{name}.png")
    tried = ("--nfe", "1", "--sampler", "mr-ode-1", "fidelity", "--images", "2")
    assert run(model, *tried, "--save") == 1
    captured = capsys.readouterr()
    assert "does not improve the degraded input" in captured.out
    assert re.search(r"not saved in \S+: .+ at NFE \d does not improve the input\n$", captured.err)
    assert read_sampler(model) is None
    assert run(model, *tried) == 0
    assert "--save" not in capsys.readouterr().out


def test_pairs_with_nothing_to_restore_are_left_out(work: Path, checkpoint: Path, capsys) -> None:
    (work / "lq" / "b.png").write_bytes((work / "gt" / "b.png").read_bytes())
    assert run(checkpoint, *FEW, "--images", "6") == 0
    captured = capsys.readouterr()
    assert "left out: lq/b.png: equal to gt/b.png, there is nothing to restore" in captured.err
    assert re.search(r"\binf\b", captured.out) is None
    assert {len(r.scores["psnr"]) for r in read_csv(work / "out" / "sweep.csv")} == {5}


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("locked", ["file", "folder"])
def test_a_checkpoint_that_cannot_keep_a_sampler_is_known_before_the_sweep(
    work: Path, checkpoint: Path, capsys, monkeypatch: pytest.MonkeyPatch, exported, locked
) -> None:
    model = work / "model" / "config.yaml" if exported else work / "model.ckpt"
    model.parent.mkdir(exist_ok=True)
    model.write_bytes(b"not even a checkpoint")
    refused = model.resolve() if locked == "file" else model.resolve().parent
    monkeypatch.setattr(paths.os, "access", lambda path, _: path != refused)
    given = model.parent if exported else model
    assert run(given, *FEW, "--save") == 2
    expected = f"{given} cannot keep a sampler: {refused} is read-only"
    assert capsys.readouterr().err == f"mrdiff sweep: error: {expected}\n"


def test_a_disk_that_is_full_is_told_by_the_files_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "temporary")

    monkeypatch.setattr("mrdiff.system.files.os.replace", full)
    with pytest.raises(OSError, match="No space left") as raised:
        write_csv(tmp_path / "sweep.csv", [INPUT])
    assert raised.value.filename == str(tmp_path / "sweep.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("complete", [0, 2])
def test_ctrl_c_keeps_the_complete_rows(
    work: Path, checkpoint: Path, capsys, monkeypatch: pytest.MonkeyPatch, complete: int
) -> None:
    restore, calls = sweeping._restore, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2 + 2 * complete + 2:  # two to warm up; in the middle of a run
            raise KeyboardInterrupt
        return restore(*arguments)

    monkeypatch.setattr(sweeping, "_restore", interrupted)
    whole = {name: name.encode() for name in ("sweep.csv", "sweep.png", "recommendation.txt")}
    for name, content in whole.items() if complete else ():
        (work / "out").mkdir(exist_ok=True)
        (work / "out" / name).write_bytes(content)
    assert run(checkpoint, *FEW, "--save") == 130
    captured = capsys.readouterr()
    if complete:
        rows = read_csv(work / "out" / "sweep.partial.csv")
        assert [r.label for r in rows] == ["input", "mr-ode-1", "fidelity"]
        text = (work / "out/recommendation.partial.txt").read_text()
        assert "interrupted after 2 of 7 runs" in text
        assert (work / "out" / "sweep.partial.png").is_file()
        assert "-> out/*.partial.*" in captured.out
        assert "saved" not in captured.out
        # An earlier sweep that is whole stays.
        assert {name: (work / "out" / name).read_bytes() for name in whole} == whole
    else:
        assert not (work / "out").exists()
        assert captured.err.endswith("interrupted\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--sampler", "mr-ode2"], "unknown sampler mr-ode2 (did you mean mr-ode-2?)"),
        (["--metric", "psnr-y"], "unknown metric psnr-y (did you mean psnr_y?)"),
        (["--grid", "powr(2)"], "unknown grid powr (did you mean power?)"),
        (["--grid", "power(x)"], "grid 'power(x)': only karras, power, uniform_angle take a num"),
        (["--grid", "uniform_angle(0)"], "grid 'uniform_angle(0)': only karras, power, uniform"),
        (["--grid", "none.yaml"], "no grid file none.yaml"),
        (["--grid", "x/g.yaml", "y/g.yaml"], "x/g.yaml and y/g.yaml: rename one of them"),
        (["--temperature", "2"], "temperature lies in [0, 1], got 2"),
        (["--nfe", "0"], "must be at least 1, got 0"),
        (["--crop", "8"], "crop must be at least 32 px, got 8"),
        (["--crop", "100.7"], "crop must be at least 32 px, a whole number, got 100.7"),
        (["--nfe", "x"], "--nfe: must be at least 1, a whole number, got x"),
        (["--output", "lq/a.png/x"], "--output lq/a.png/x: lq/a.png is not a folder"),
        (["--nfe", "3", "--grid", "x/g.yaml"], "there is no run: x/g.yaml has no times for NFE 3"),
        (
            ["--nfe", "1", "3", "--budget", "3", "--grid", "x/two.yaml"],
            "no run within --budget 3: x/two.yaml has no times for NFE 1; x/two.yaml has no times "
            "for NFE 3",
        ),
        (["--budget", "1", "--nfe", "2"], "--budget 1: the least --nfe is 2"),
        (["--metric", "lpips"], "--metric lpips needs AlexNet's features: give --lpips_weights"),
        (["--input", "none"], "--input none: no such file or folder"),
        (["--input", "x"], "--input x: no images in this folder"),
        (["--reference", "none"], "--reference none: no such file or folder"),
        (["--reference", "x"], "--reference x: no file there has the stem of any input"),
        (["--output", "lq/a.png"], "--output lq/a.png: must be a folder"),
        (["--checkpoint", "none.ckpt"], "no checkpoint at none.ckpt"),
        (["--checkpoint", "lq/a.png"], "lq/a.png is not a readable checkpoint"),
        (["--device", "nonsense"], "--device nonsense: "),
        (["--imags", "3"], "unknown option --imags (did you mean --images?)"),
    ],
)
def test_errors_are_one_line(
    work: Path, checkpoint: Path, capsys, arguments: list[str], expected: str
) -> None:
    for folder in "xy":
        write_grid(work / folder / "g.yaml", {1: [1.0, 0.0]}, MRProcess(), made={})
        write_grid(work / folder / "two.yaml", {2: [1.0, 0.5, 0.0]}, MRProcess(), made={})
    assert run(checkpoint, *arguments) in (1, 2)
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("mrdiff sweep: error: ")
    assert expected in captured.err
    assert captured.out == ""
    assert not (work / "out").exists()


INPUT = row("input", 0, 10.0, 12.0)


def test_the_fewest_calls_within_the_tolerance() -> None:
    rows = [INPUT, row("fidelity", 1, 19.8, 20.0), row("fidelity", 3, 19.9, 20.1)]
    rows += [row("mr-ode-2", 5, 20.0, 20.2), row("mr-ode-1", 3, 19.9, 20.12)]
    found = recommend(rows, "psnr")
    assert str(found.best) == "mr-ode-2 at NFE 5"
    assert str(found.choice) == "mr-ode-1 at NFE 3"  # exactly 0.1 dB would do; the better of two
    assert found.default is found.best
    assert found.runner_up is rows[4]
    assert recommend(rows[:4], "psnr").choice is rows[2]  # 0.1 dB is within
    limited = recommend(rows, "psnr", budget=1)
    assert (limited.choice.nfe, limited.unlimited) == (1, found.choice)
    assert "Without the budget it would be mr-ode-1 at NFE 3, better by 0.11" in words(
        limited, checkpoint="m.ckpt"
    )


def test_lower_is_better_for_lpips_and_the_tolerance_is_its_own() -> None:
    values = {"mr-ode-1": 0.300, "mr-ode-2": 0.204, "mr-ode-3": 0.2, "mr-sde-1": 0.206}
    nfes = {"mr-ode-1": 1, "mr-ode-2": 3, "mr-ode-3": 5, "mr-sde-1": 2}
    rows = [row("input", 0, 0.5, 0.5, metric="lpips")]
    rows += [row(n, nfes[n], v, v + 0.02, metric="lpips") for n, v in values.items()]
    found = recommend(rows, "lpips")
    assert (found.best.label, found.choice.label) == ("mr-ode-3", "mr-ode-2")
    text = words(found, checkpoint="m.ckpt")
    assert "the best, mr-ode-3 at NFE 5 (0.2100): worse by 0.0040 ± 0.0000" in text
    assert "the degraded input (0.5100): better by 0.2960 ± 0.0100" not in text
    assert "the degraded input (0.5000): better by 0.2860 ± 0.0100" in text
    assert "*0.2140" in format_table(rows, "lpips")


def test_the_error_is_that_of_paired_differences() -> None:
    rows = [INPUT, row("mr-ode-1", 2, 30.0, 20.0, 25.0), row("mr-ode-2", 2, 30.5, 20.1, 25.6)]
    rows[0] = row("input", 0, 10.0, 12.0, 14.0)
    text = words(recommend(rows, "psnr"), checkpoint="m.ckpt")
    error = np.std([0.5, 0.1, 0.6], ddof=1) / np.sqrt(3)
    assert f"better by 0.40 ± {error:.2f} dB than the runner-up, mr-ode-1 at NFE 2" in text
    assert "within the noise" not in text
    assert "3 images decide little" in text


def test_the_runner_up_is_not_the_same_thing_twice() -> None:
    rows = [INPUT, row("mr-ode-1", 1, 20.0, 21.0), row("mr-ode-2", 1, 20.0, 21.0)]
    assert recommend(rows, "psnr").runner_up is None
    rows.append(row("fidelity", 1, 19.0, 20.5))
    assert recommend(rows, "psnr").runner_up is rows[-1]


def test_what_is_not_finite_or_worse_than_the_input_is_not_praised() -> None:
    broken = row("mr-ode-1", 1, float("nan"), 90.0)
    rows = [INPUT, broken, row("mr-ode-2", 2, 9.0, 9.5)]
    found = recommend(rows, "psnr")
    assert found.best is rows[2]
    assert "does not improve the degraded input" in words(found, checkpoint="m.ckpt")
    draw(rows, found, title="").savefig(io.BytesIO())
    with pytest.raises(ValueError, match="no run has a finite PSNR"):
        recommend([INPUT, broken], "psnr")


def test_images_equal_to_their_references_count_as_100_db() -> None:
    inf = float("inf")
    rows = [row("input", 0, inf, 12.0), row("mr-ode-1", 1, 40.0, 13.0)]
    found = recommend(rows, "psnr")
    text = words(found, checkpoint="m.ckpt")
    assert not found.improves
    assert "degraded input (56.00 dB): worse by 29.50" in text
    assert re.search(r"\b(inf|nan)\b", text + format_table(rows, "psnr")) is None
    rows.append(row("mr-ode-2", 1, inf, 14.0))
    found = recommend(rows, "psnr")
    text = words(found, checkpoint="m.ckpt")
    assert found.improves
    assert "degraded input (56.00 dB): better by 1.00 ± 1.00 dB" in text
    assert "An image equal to its reference counts as 100.00 dB." in text
    draw(rows, found, title="").savefig(io.BytesIO())


def test_flags_say_only_what_differs() -> None:
    plain = row("fidelity", 2, 1.0)
    assert flags(plain) == ["--sampler", "fidelity", "--nfe", "2"]
    changed = replace(plain, settings={**plain.settings, "temperature": "1", "grid": "power(2)"})
    assert flags(changed)[4:] == ["--grid", "power(2)", "--temperature", "1"]
    assert flags(row("posterior", 3, 1.0)) == ["--sampler", "posterior", "--nfe", "3"]
    middle = row("consistency", 2, 1.0)
    assert flags(middle) == ["--sampler", "consistency", "--nfe", "2"]
    swept = replace(middle, settings={**middle.settings, "grid": "uniform_angle(0.05)"})
    assert flags(swept)[4:] == ["--grid", "uniform_angle(0.05)"]


def test_the_table_stars_the_best_of_each_nfe() -> None:
    rows = [INPUT, row("mr-ode-1", 1, 20.0), row("mr-ode-2", 1, 19.0), row("mr-ode-2", 5, 21.0)]
    table = format_table(rows, "psnr")
    assert re.search(r"^mr-ode-1 +\*20\.00$", table, re.M)
    assert re.search(r"^mr-ode-2 +19\.00 +\*21\.00$", table, re.M)


def test_the_plot_has_a_line_a_candidate_and_the_star() -> None:
    rows = [INPUT, row("mr-ode-2", 5, 20.0, 20.2), row("fidelity", 1, 20.0, 20.3, seconds=0.02)]
    left, right = draw(rows, recommend(rows, "psnr"), title="two").axes
    assert [line.get_label() for line in left.get_lines()] == [
        "mr-ode-2",
        "fidelity",
        "recommended",
    ]
    assert right.get_lines()[-1].get_xdata()[0] == 0.02
    assert left.get_ylabel() == "PSNR in dB (higher is better)"
