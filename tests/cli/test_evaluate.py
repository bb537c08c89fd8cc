"""mrdiff evaluate: it measures what mrdiff sample writes, and goes on where it was killed."""

from __future__ import annotations

import csv
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from mrdiff.cli.evaluate import command as evaluate
from mrdiff.cli.evaluate import published, work
from mrdiff.cli.evaluate.parts import INPUT, Part, write_part
from mrdiff.cli.evaluate.published import Published, published_of
from mrdiff.cli.evaluate.report import best_run
from mrdiff.cli.evaluate.rows import Row, rows_of
from mrdiff.cli.sample import command as sample
from mrdiff.metrics import Features, frechet_distance, psnr
from mrdiff.photo import read_rgb, write_image
from mrdiff.restoration.restorer import Restorer
from tests.places import ROOT
from tests.random_weights import ALEXNET, random_features, write_random_features
from tests.tiny_model import write_pairs, write_tiny_checkpoint

TASKS = ("rainy", "inpainting")
PAIRS = {"rainy": ("a.png", "b.jpg", "c.png"), "inpainting": ("d.png", "e.png")}
FEW = ("--nfe", "1", "2", "--sampler", "fidelity", "mr-ode-2", "--metrics", "psnr", "ssim")
Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two tasks, which takes masks, with random weights."""
    path = tmp_path_factory.mktemp("model") / "tiny.ckpt"
    return write_tiny_checkpoint(path, tasks=TASKS, mask=True)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pairs of both tasks, those of one with masks, in ``data`` of the working directory."""
    for task, names in PAIRS.items():
        write_set(tmp_path / "data" / task, names)
    for name in PAIRS["inpainting"]:
        mask = torch.ones(1, 40, 48)
        mask[:, 10:20, 10:30] = 0
        write_image(tmp_path / "data" / "inpainting" / "mask" / name, mask)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MRDIFF_LPIPS_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "data"


def write_set(folder: Path, names: tuple[str, ...]) -> None:
    write_pairs(folder, names)
    (folder / "lq").rename(folder / "LQ")
    (folder / "gt").rename(folder / "GT")


def flags(checkpoint: Path, output: str, *more: str, data: str = "data") -> list[str]:
    given = ["--checkpoint", str(checkpoint), "--data", data, "--output", output]
    return [*given, "--device", "cpu", *more]


def run(checkpoint: Path, output: str, *more: str, data: str = "data") -> int:
    return evaluate.main(flags(checkpoint, output, *more, data=data))


def rows(output: str) -> Rows:
    with Path(output, "evaluate.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def timeless(output: str) -> Rows:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(output)]


def parts(output: str) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(Path(output, "photos").rglob("*.safetensors"))}


def restored_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The network calls of each photo that is restored from now on; warming up is none."""
    calls, real = list[int](), work.restore_one

    def counting(restorer: Restorer, lq: torch.Tensor, name: str, **given):
        calls.extend([restorer.sampler.nfe] * bool(name))
        return real(restorer, lq, name, **given)

    monkeypatch.setattr(work, "restore_one", counting)
    return calls


def test_wrong_folders_are_told_without_torch(data: Path, checkpoint: Path) -> None:
    (data / "hazy" / "LQ").mkdir(parents=True)
    cases = {
        ".": "expected LQ and GT, or folders <task>/LQ and <task>/GT in it: is it data?",
        "data/rainy/GT": "expected LQ and GT, or",
        "data": "--data data/hazy: it has no folder GT: each task needs LQ and GT",
        "data --tasks rainy inpaint": "--tasks inpaint: no such folder in data (did you mean in",
    }
    code = "import sys\nfrom mrdiff.cli.evaluate import command\n"
    for place, _ in cases.items():
        given = ["--checkpoint", str(checkpoint), "--output", "o", "--data", *place.split()]
        code += f"print(command.main({given}), 'torch' in sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2", "False"] * len(cases), done.stderr
    for line, told in zip(done.stderr.splitlines(), cases.values(), strict=True):
        assert told in line
    assert not Path("o").exists()


def test_it_measures_what_sample_writes(data: Path, checkpoint: Path, capsys) -> None:
    assert run(checkpoint, "out", *FEW) == 0
    assert "evaluated 5 photos, failed 0 -> out\n" in capsys.readouterr().out
    found = rows("out")
    runs = [("input", "0"), *((s, n) for s in ("fidelity", "mr-ode-2") for n in "12")]
    wanted = [(task, *each) for task in ("inpainting", "rainy") for each in runs]
    assert [(row["task"], row["sampler"], row["nfe"]) for row in found] == wanted
    for row in found:
        task, folder = row["task"], data / row["task"]
        names = PAIRS[task]
        if row["nfe"] != "0":
            given = ["--checkpoint", str(checkpoint), "--input", str(folder / "LQ"), "--device"]
            given += ["cpu", "--task", task, "--sampler", row["sampler"], "--nfe", row["nfe"]]
            given += ["--mask", str(folder / "mask")] if task == "inpainting" else []
            target = Path(f"{task}-{row['sampler']}-{row['nfe']}")
            assert sample.main([*given, "--output", str(target), "--format", "png"]) == 0
        else:
            target = folder / "LQ"
        values = []
        for name in names:
            written = (
                target / name if row["nfe"] == "0" else target / Path(name).with_suffix(".png")
            )
            truth = folder / "GT" / Path(name).with_suffix(".png")
            values.append(float(psnr(read_rgb(written)[None], read_rgb(truth)[None])))
        assert float(row["psnr"]) == pytest.approx(statistics.fmean(values), abs=2e-6)
        assert row["photos"] == str(len(names))
        assert row["judged_right"] == ""  # the folder names the task


def test_the_table_the_figure_and_the_page_say_what_the_csv_says(data: Path, checkpoint) -> None:
    assert run(checkpoint, "out", *FEW) == 0
    text, page = (Path("out", name).read_text() for name in ("evaluate.md", "report.html"))
    for row in rows("out"):
        cell = f"{float(row['psnr']):.2f}"
        assert re.search(
            rf"\| {row['sampler']} \| {row['nfe'].strip('0')} \| \**{cell}\** \|", text
        )
        assert f'data-value="{row["psnr"]}">{cell}</td>' in page
    of_input = [float(row["psnr"]) for row in rows("out") if row["nfe"] == "0"]
    mean = f"{statistics.fmean(of_input):.2f}"
    assert "## Mean over 2 tasks\n\n| sampler | NFE | PSNR ↑ | SSIM ↑ | seconds |" in text
    assert f"| input |  | {mean} |" in text
    for fact in ("protocol: standard", "seed: 0", "photos: whole", "device: CPU, fp32"):
        assert f"* {fact}" in text
        assert f"<li>{fact}" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # nothing is fetched
    assert page.count('<section class="photo"') == 5
    assert Image.open("out/evaluate.png").size > (800, 300)


def test_a_killed_run_goes_on_and_gives_the_same_table(data: Path, checkpoint: Path) -> None:
    write_set(data / "snowy", tuple(f"{index:02d}.png" for index in range(30)))
    more = ("--nfe", "1", "20", "--metrics", "psnr", "ssim", "--tasks", "snowy", "inpainting")
    command = [sys.executable, "-m", "mrdiff", "evaluate", *flags(checkpoint, "out", *more)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list(Path("out").rglob("*.safetensors")) and time.monotonic() < end:
        time.sleep(0.005)
    process.kill()
    process.wait()
    before = parts("out")
    assert 1 <= len(before) < 32
    assert not Path("out", "evaluate.csv").exists()
    assert run(checkpoint, "out", *more) == 0
    after = parts("out")
    assert len(after) == 32
    # The last one may have been killed between its runs; all others stay as they were.
    assert sum(after[name] != content for name, content in before.items()) <= 1
    assert run(checkpoint, "whole", *more) == 0
    assert timeless("out") == timeless("whole")
    again = Path("out", "evaluate.csv").read_bytes()
    assert run(checkpoint, "out", *more) == 0
    assert Path("out", "evaluate.csv").read_bytes() == again


def test_another_nfe_or_a_damaged_file_costs_itself_alone(
    data: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = restored_calls(monkeypatch)
    plain = ("--sampler", "mr-ode-2", "--metrics", "psnr")
    assert run(checkpoint, "out", *plain, "--nfe", "1", "2") == 0
    assert sorted(calls) == [1] * 5 + [2] * 5
    calls.clear()
    assert run(checkpoint, "out", *plain, "--nfe", "1", "3") == 0
    assert calls == [3] * 5
    assert {row["nfe"] for row in rows("out")} == {"0", "1", "3"}
    first = timeless("out")
    calls.clear()
    damaged = Path("out", "photos", "rainy", "b.jpg.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-3])
    shutil.copy(data / "rainy" / "GT" / "c.png", data / "rainy" / "LQ" / "a.png")  # another photo
    assert run(checkpoint, "out", *plain, "--nfe", "1", "3") == 0
    assert calls == [1, 3] * 2
    changed = [a["task"] for a, b in zip(first, timeless("out"), strict=True) if a != b]
    assert set(changed) == {"rainy"}


def test_an_interrupted_run_says_how_to_go_on(
    data: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    calls, few = restored_calls(monkeypatch), ("--nfe", "1", "2", "--metrics", "psnr")
    counting = work.restore_one

    def stopped(*given, **named):
        if len(calls) == 3:
            raise KeyboardInterrupt
        return counting(*given, **named)

    monkeypatch.setattr(work, "restore_one", stopped)
    assert run(checkpoint, "out", *few) == 130
    assert "1 of 5 photos are done: the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(work, "restore_one", counting)
    assert run(checkpoint, "out", *few) == 0
    assert calls == [1, 2] * 5


def test_distances_of_sets_are_named_with_their_backbone(
    data: Path, checkpoint: Path, capsys
) -> None:
    write_random_features(Path("random.pth"), ALEXNET)
    own = ("--backbone", "alexnet", "--backbone_weights", "random.pth")
    assert run(checkpoint, "out", "--nfe", "1", "--metrics", "fid", *own) == 0
    features = Features.find("alexnet", "random.pth")
    assert features is not None
    for row in rows("out"):
        files = [sorted((data / row["task"] / part).iterdir()) for part in ("LQ", "GT")]
        sets = [torch.cat([features(read_rgb(p)[None]) for p in part]) for part in files]
        if row["nfe"] == "0":
            assert float(row["fid_alexnet"]) == pytest.approx(frechet_distance(*sets), abs=1e-5)
    assert "FID on alexnet ↓" in Path("out/evaluate.md").read_text()
    torch.save({k: v + 0.01 for k, v in random_features(ALEXNET).items()}, "random.pth")
    assert run(checkpoint, "out", "--nfe", "1", "--metrics", "fid", *own) == 2
    assert "holds an evaluation with weights of metrics " in capsys.readouterr().err


def test_another_model_or_seed_is_refused(
    data: Path, checkpoint: Path, tmp_path: Path, capsys
) -> None:
    few = ("--nfe", "1", "--metrics", "psnr", "ssim", "--images", "1")
    assert run(checkpoint, "out", *few) == 0
    kept = parts("out")
    assert run(checkpoint, "out", *few, "--metrics", "ssim", "psnr") == 0  # in another order
    other = write_tiny_checkpoint(tmp_path / "other.ckpt", identity=True, tasks=TASKS, mask=True)
    capsys.readouterr()
    for flags_of, told in (
        ((other,), "with model "),
        ((checkpoint, "--seed", "1"), "with seed 0, this one has 1: choose another"),
        ((checkpoint, "--crop", "32"), "with crop None, this one has 32"),
        ((checkpoint, "--task", "auto"), "with task by folder, this one has auto"),
    ):
        model, *more = flags_of
        assert run(model, "out", *few, *more) == 2
        said = capsys.readouterr().err
        assert f"--output out holds an evaluation {told}" in said
        assert len(said.splitlines()) == 1
    assert parts("out") == kept


def test_settings_may_change_as_long_as_nothing_is_kept(
    data: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def full(*given, **named):
        raise torch.OutOfMemoryError("CUDA out of memory")

    few = ("--nfe", "1", "--metrics", "psnr")
    with monkeypatch.context() as patch:
        patch.setattr(work, "restore_one", full)
        assert run(checkpoint, "out", *few) == 1
    assert "out of memory, try a smaller --crop" in capsys.readouterr().err
    assert run(checkpoint, "out", *few, "--crop", "32") == 0


def test_what_another_command_took_away_is_told(
    data: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Two that write at once keep one another's numbers by chance alone."""

    def lossy(path: Path, part: Part) -> None:
        write_part(path, replace(part, scores={INPUT: part.scores[INPUT]}))

    monkeypatch.setattr(work, "write_part", lossy)
    assert run(checkpoint, "out", "--nfe", "1", "--metrics", "psnr") == 1
    assert "has been changed: run the same command again" in capsys.readouterr().err


def test_names_of_all_kinds(data: Path, checkpoint: Path) -> None:
    """A formula for matplotlib, no UTF-8, and what the rows of means are called."""
    (data / "inpainting").rename(data / "mean")
    strange = os.fsencode(data) + b"/a$b_$\xe9"
    try:
        os.rename(data / "rainy", strange)
    except OSError:
        pytest.skip("this file system has no such names")
    os.rename(strange + b"/LQ/a.png", strange + b"/LQ/caf\xe9.png")
    os.rename(strange + b"/GT/a.png", strange + b"/GT/caf\xe9.png")
    few = ("--nfe", "1", "--metrics", "psnr")
    assert run(checkpoint, "out", *few) == 0
    assert Path("out/photos/a$b_$\\xe9/caf\\xe9.png.safetensors").is_file()
    before = parts("out")
    assert run(checkpoint, "out", *few) == 0
    assert parts("out") == before
    page = Path("out/report.html").read_text()
    assert "a$b_$\\xe9/caf\\xe9.png" in page
    assert page.count('href="#task') == 4  # two rows a task, and none of the means
    assert run(checkpoint, "one", *few, "--tasks", os.fsdecode(b"a$b_$\xe9")) == 0


def test_bad_photos_are_named_and_the_others_go_on(data: Path, checkpoint: Path, capsys) -> None:
    (data / "rainy" / "LQ" / "broken.png").write_bytes(b"no image")
    shutil.copy(data / "rainy" / "GT" / "a.png", data / "rainy" / "GT" / "broken.png")
    shutil.copy(data / "rainy" / "LQ" / "a.png", data / "rainy" / "LQ" / "alone.png")
    write_image(data / "rainy" / "GT" / "c.png", torch.rand(3, 20, 20))
    assert run(checkpoint, "out", "--nfe", "1", "--metrics", "psnr") == 1
    said = capsys.readouterr()
    assert "failed: rainy/broken.png: data/rainy/LQ/broken.png: not an image" in said.err
    assert "failed: data/rainy/LQ/alone.png: has no partner in data/rainy/GT" in said.err
    assert "failed: rainy/c.png: data/rainy/GT/c.png: another size than" in said.err
    assert "evaluated 4 photos, failed 3 -> out\n" in said.out
    assert {(row["task"], row["photos"]) for row in rows("out")} == {
        *(("rainy", "2"), ("inpainting", "2"))
    }


def test_two_processes_measure_what_one_measures(data: Path, checkpoint: Path) -> None:
    (data / "rainy" / "LQ" / "a.png").write_bytes(b"no image")
    assert run(checkpoint, "one", *FEW) == 1
    command = [sys.executable, "-m", "mrdiff", "evaluate"]
    command += flags(checkpoint, "two", *FEW, "--devices", "2")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1, done.stderr
    assert timeless("two") == timeless("one")
    assert done.stdout.count("evaluated 4 photos, failed 1 -> two") == 1
    assert done.stderr.count("failed: rainy/a.png: ") == 1


def test_a_model_that_judges_is_counted(data: Path, checkpoint: Path) -> None:
    few = ("--nfe", "1", "--metrics", "psnr")
    assert run(checkpoint, "out", *few, "--task", "auto") == 0
    judge = Restorer.from_checkpoint(checkpoint, device="cpu", nfe=1)
    for task, names in PAIRS.items():
        judged = list[tuple[str, float]]()
        for name in names:
            photo = read_rgb(data / task / "LQ" / name)[None]
            judge.restore(photo, [name], on_task=judged.extend)
        right = sum(name == task for name, _ in judged)
        assert {row["judged_right"] for row in rows("out") if row["task"] == task} == {str(right)}
        assert f"Judged right: {right} of {len(names)}." in Path("out/evaluate.md").read_text()


def test_one_pair_of_folders_and_few_of_its_photos(data: Path, checkpoint: Path, capsys) -> None:
    (data / "rainy").rename(data.parent / "Rain3")
    (data / "rainy").symlink_to(data.parent / "Rain3")  # whose name is the task all the same
    few = ("--nfe", "1", "--images", "2", "--crop", "32")
    assert run(checkpoint, "out", *few, "--metrics", "psnr", "niqe", data="data/rainy") == 0
    assert [(row["task"], row["photos"], row["niqe"]) for row in rows("out")] == [
        ("rainy", "2", "")
    ] * 2
    assert "note: rainy: no NIQE: a photo is too small for it" in capsys.readouterr().err
    assert run(checkpoint, "no", *few, "--metrics", "niqe", data="data/rainy") == 0
    assert Path("no/evaluate.png").is_file()
    assert run(checkpoint, "all", *few, data="data/rainy") == 0
    assert "not measured: LPIPS (" in capsys.readouterr().err
    assert run(checkpoint, "none", *few, "--metrics", "lpips", data="data/rainy") == 2
    assert "--metrics lpips: " in capsys.readouterr().err


def test_masks_are_used_if_every_photo_has_one(data: Path, checkpoint: Path, capsys) -> None:
    few = ("--nfe", "1", "--metrics", "psnr", "--tasks", "rainy")
    assert run(checkpoint, "without", *few) == 0
    write_image(data / "rainy" / "mask" / "a.png", torch.zeros(1, 40, 48))
    assert run(checkpoint, "out", *few) == 0
    assert "note: rainy: 1 of 3 photos have a mask: none is used" in capsys.readouterr().err
    assert timeless("out") == timeless("without")


def test_the_best_is_what_the_metric_says() -> None:
    scores = [{"psnr": 20.0, "lpips": 0.1}, {"psnr": 21.0, "lpips": 0.3}]
    few, many = (
        Row("t", "s", n, 1, None, 0.1, each) for n, each in zip((1, 2), scores, strict=True)
    )
    before = Row("t", "input", 0, 1, None, 0.0, {"psnr": 30.0, "lpips": 0.0})
    assert best_run([before, few, many], "psnr") is many
    assert best_run([before, few, many], "lpips") is few
    nowhere = replace(many, scores={"psnr": math.nan, "lpips": 0.1})
    assert best_run([before, few, nowhere], "psnr") is few
    assert best_run([before, nowhere, few], "lpips") is few  # the same with fewer calls


def test_a_perfect_photo_counts_100_db_and_no_other_metric_ends_there() -> None:
    one = Part("", scores={INPUT: {"psnr": math.inf, "niqe": 707.4}})
    two = Part("", scores={INPUT: {"psnr": 30.0, "niqe": 3.0}})
    (row,) = rows_of("rainy", [one, two], [], ["psnr", "niqe"], judged=False)
    assert row.scores == {"psnr": 65.0, "niqe": 355.2}


def test_published_numbers_stand_beside_the_same_test_set_alone(
    data: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"method": "Theirs", "nfe": 100, "psnr": 31.5, "fid": 18.25}
    entry = Published(set="Rain3", task="rainy", pairs=3, source="A Paper, Table 1", rows=[row])
    monkeypatch.setattr(published, "_all", lambda: (entry,))
    few = ("--nfe", "1", "--metrics", "psnr")
    assert run(checkpoint, "out", *few) == 0
    text = Path("out/evaluate.md").read_text()
    told = "Published, if these are the 3 pairs of Rain3 (A Paper, Table 1):"
    assert told in text[text.index("## rainy") :]
    assert text.count("| Theirs | 100 | 31.50 | 18.25 |") == 1
    for part in (("--images", "3"), ("--crop", "40"), ("--tasks", "inpainting")):
        assert run(checkpoint, f"part{part[1]}", *few, *part) == 0
        assert "Published" not in Path(f"part{part[1]}", "evaluate.md").read_text()
    with pytest.raises(ValueError, match="unknown accuracy"):
        Published(set="s", task="t", pairs=1, source="p", rows=[{"method": "m", "accuracy": 1}])


def test_the_published_numbers_that_come_along_can_be_read() -> None:
    heavy, light = published_of("rainy", 100)  # which of the two a folder is, nobody can tell
    assert (heavy.set, light.set) == ("Rain100H", "Rain100L")
    assert "| IR-SDE | 100 | 31.65 |" in heavy.table
    assert not published_of("rainy", 99)
    assert (ROOT / "mrdiff" / "cli" / "evaluate" / "published.yaml").is_file()
