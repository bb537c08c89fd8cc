"""``mrdiff sample photo.jpg``: no flag, the model that comes along, the result beside the photo."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.datasets.demo import write_mixed
from mrdiff.checkpoints.places import find_model
from mrdiff.cli.main import main
from mrdiff.metrics import psnr
from mrdiff.photo import read_rgb
from tests.tiny_model import write_pairs, write_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny.ckpt"))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_pairs(tmp_path, ("a.png", "b.jpg", "s/c.png"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_mixed(folder, size=256)
    return folder


def test_the_models_that_come_along_restore_what_ails_a_photo(spoilt: Path, capsys) -> None:
    """Five tasks of six judged right, each better than before, and told where it is."""
    assert main(["sample", str(spoilt / "LQ"), "--device", "cpu"]) == 0
    out = capsys.readouterr().out.splitlines()
    gains, right = [], 0
    for photo in sorted((spoilt / "LQ").glob("*.png")):
        after = spoilt / "LQ_restored" / photo.name
        (line,) = [line for line in out if line.startswith(f"{photo} -> {after}: ")]
        right += photo.name.startswith(line.removeprefix(f"{photo} -> {after}: ").split(" (")[0])
        assert "fidelity, 5 calls" in line
        truth = read_rgb(spoilt / "GT" / photo.name)[None]
        gains.append(float(psnr(read_rgb(after)[None], truth) - psnr(read_rgb(photo)[None], truth)))
    assert len(gains) == 6
    assert right >= 5
    assert min(gains) > 0
    assert np.mean(gains) > 4
    assert "--task motion-blurry, hazy" in out[-2]


def test_nothing_that_is_there_is_lost(work: Path, checkpoint: str, capsys) -> None:
    flags = ["--checkpoint", checkpoint, "--nfe", "1"]
    for _ in range(2):
        assert main(["sample", "lq/a.png", *flags]) == 0
    first, second = Path("lq/a_restored.png"), Path("lq/a_restored_2.png")
    assert first.read_bytes() == second.read_bytes()
    assert "lq/a.png -> lq/a_restored_2.png: " in capsys.readouterr().out
    before = second.stat().st_mtime_ns
    assert main(["sample", "lq/a.png", *flags, "--skip_existing"]) == 0
    assert "restored 0, skipped 1" in capsys.readouterr().out
    assert second.stat().st_mtime_ns == before


def test_several_photos_and_folders(work: Path, checkpoint: str, capsys) -> None:
    flags = ["--checkpoint", checkpoint, "--nfe", "1"]
    assert main(["sample", "lq/a.png", *flags, "lq/s", "--input", "lq/b.jpg"]) == 0
    wanted = ["a.png", "a_restored.png", "b.jpg", "b_restored.jpg", "s/c.png", "s_restored/c.png"]
    assert below(work / "lq") == wanted
    assert main(["sample", "gt/a.png", "lq/s", *flags, "--output", "out"]) == 0
    assert below(work / "out") == ["a.png", "s/c.png"]
    assert capsys.readouterr().out.count(" -> ") == 3 + 1 + 1  # photos, and two summaries


def test_no_two_results_have_one_name(work: Path, checkpoint: str) -> None:
    """However their folder is spelt."""
    Image.new("L", (40, 40), 99).save("lq/a.gif")
    flags = ["--checkpoint", checkpoint, "--nfe", "1"]
    Path("link").symlink_to("lq")
    assert main(["sample", "lq/a.gif", str(work / "lq" / "a.png"), "link/b.jpg", *flags]) == 0
    wanted = {"a_restored.png", "a_restored.gif.png", "b_restored.jpg"}
    assert wanted <= {*below(work / "lq")}


def test_every_photo_that_is_given_is_restored(work: Path, checkpoint: str) -> None:
    Path("-p.png").write_bytes(Path("lq/a.png").read_bytes())
    Path("universal").mkdir()  # no model, but named as ours
    flags = ["--checkpoint", checkpoint, "--nfe", "1", "--output", "out"]
    given = ["--input", "lq/a.png", "--input", "lq/b.jpg", *flags, "--", "-p.png"]
    assert main(["sample", *given]) == 0
    assert below(work / "out") == ["-p.png", "a.png", "b.jpg"]
    assert main(["sample", "lq/a.png", "--nfe", "1"]) == 0  # by the bundled model


def test_an_interrupted_run_goes_on_by_the_same_words(work: Path, checkpoint: str, capsys) -> None:
    flags = ["--checkpoint", checkpoint, "--nfe", "1", "--skip_existing"]
    assert main(["sample", "lq/a.png", *flags]) == 0
    every = [str(path) for path in Path("lq").glob("*.*")]
    assert "lq/a_restored.png" in every
    assert main(["sample", *every, *flags]) == 0
    assert "restored 1, skipped 1" in capsys.readouterr().out
    assert below(work / "lq") == ["a.png", "a_restored.png", "b.jpg", "b_restored.jpg", "s/c.png"]


def test_what_is_no_photo_does_not_stop_the_others(work: Path, checkpoint: str, capsys) -> None:
    Path("notes.txt").write_text("no photo")
    Path("broken.png").write_bytes(b"\x89PNG\r\n")
    given = ["sample", "notes.txt", "broken.png", "lq/a.png", "--checkpoint", checkpoint]
    assert main([*given, "--nfe", "1"]) == 1
    told = capsys.readouterr()
    assert "failed: notes.txt: not an image file that is read" in told.err
    assert "failed: broken.png: " in told.err
    assert "restored 1, skipped 0, failed 2" in told.out
    assert Path("lq/a_restored.png").is_file()
    assert not Path("broken_restored.png").exists()


def test_a_gif_beside_a_png_of_its_name(work: Path, checkpoint: str) -> None:
    Image.new("L", (40, 40), 99).save("lq/a.gif")
    flags = ["--checkpoint", checkpoint, "--nfe", "1"]
    assert main(["sample", "lq/a.gif", "lq/a.png", *flags]) == 0
    assert {"a_restored.png", "a_restored.gif.png"} <= {*below(work / "lq")}


def test_the_folder_that_one_stands_in(work: Path, checkpoint: str, monkeypatch) -> None:
    monkeypatch.chdir("lq")
    assert main(["sample", ".", "--checkpoint", checkpoint, "--nfe", "1"]) == 0
    assert below(work / "lq_restored") == ["a.png", "b.jpg", "s/c.png"]


def test_a_mask_of_one_photo_is_a_file(work: Path, capsys) -> None:
    with Image.open("lq/a.png") as photo:
        Image.new("L", photo.size, 255).save("whole.png")
        Image.new("L", photo.size, 0).save("hole.png")
    for name in ("whole", "hole"):
        flags = ["--mask", f"{name}.png", "--task", "inpainting", "--nfe", "1", "--output", name]
        assert main(["sample", "lq/a.png", *flags]) == 0
    assert Path("whole/a.png").read_bytes() != Path("hole/a.png").read_bytes()
    assert main(["sample", "lq", "--mask", "hole.png"]) == 2
    assert "--mask hole.png: of 3 photos, give a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which photo? mrdiff sample photo.jpg"),
        (["missing.jpg"], "--input missing.jpg: no such file or folder"),
        (["lq/a.png", "--compare"], "--compare needs --output DIR"),
        (["lq/a.png", "--samples", "2"], "--samples needs --output DIR"),
        ([""], "an empty path: is a variable not set?"),
        (["lq/a.png", "--reference", "gt", "--report", "lq/b.jpg"], "is to be named .html"),
        (["lq/a.png", "--log", "lq/b.jpg"], "is named as a photo"),
        (["lq/a.png", "--task", "foggy"], "no task foggy: this model knows motion-blurry"),
    ],
)
def test_what_is_wrong_is_one_line(work: Path, arguments, message, capsys) -> None:
    assert main(["sample", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_pipe_needs_no_output(work: Path, checkpoint: str, monkeypatch) -> None:
    class Stream:
        def __init__(self, content: bytes = b"") -> None:
            self.buffer = io.BytesIO(content)

        def isatty(self) -> bool:
            return False

        def flush(self) -> None:
            pass

        write = flush

    piped = Stream()
    monkeypatch.setattr(sys, "stdin", Stream(Path("lq/a.png").read_bytes()))
    monkeypatch.setattr(sys, "stdout", piped)
    assert main(["sample", "-", "--checkpoint", checkpoint, "--nfe", "1"]) == 0
    assert Image.open(io.BytesIO(piped.buffer.getvalue())).format == "PNG"


def test_half_precision_restores_nearly_the_same(work: Path, checkpoint: str) -> None:
    for name, half in (("whole", []), ("half", ["--half"])):
        assert main(["export", "--checkpoint", checkpoint, "--output", name, *half]) == 0
        flags = ["--checkpoint", name, "--nfe", "2", "--output", f"out-{name}"]
        assert main(["sample", "lq/a.png", *flags]) == 0
    sizes = [Path(name, "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert 0.45 < sizes[1] / sizes[0] < 0.75  # names take room in so small a file
    whole, half = (read_rgb(f"out-{name}/a.png") for name in ("whole", "half"))
    assert float((whole - half).abs().max()) <= 3 / 255


def test_the_bundled_model_is_small_and_safe() -> None:
    folder = find_model("universal")
    assert below(folder) == ["README.md", "config.yaml", "model.safetensors"]
    assert (folder / "model.safetensors").stat().st_size < 11_000_000
