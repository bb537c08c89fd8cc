"""sample.py for models that take features, and ``mrdiff features``, which stores them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mrdiff import MRProcess
from mrdiff.checkpoints.description import describe_denoiser
from mrdiff.checkpoints.export import export_model
from mrdiff.cli import main
from mrdiff.cli.sample import command as sample
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import Parameterization
from mrdiff.official.daclip import DACLIPError
from tests.networks.test_official import small
from tests.places import ROOT
from tests.tiny_daclip import write_daclip
from tests.tiny_model import write_pairs, write_tiny_checkpoint

PHOTOS = ("a", "b", "s/a")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``universal``, an exported model that takes features; ``plain.ckpt``; ``daclip.pt``."""
    folder = tmp_path_factory.mktemp("models")
    denoiser = Denoiser(small("daclip"), MRProcess(), Parameterization.named("data"))
    weights = {f"denoiser.{key}": value for key, value in denoiser.state_dict().items()}
    config = {"format": 1, "model": describe_denoiser(denoiser), "data": None}
    torch.save({"state_dict": weights, "mrdiff": config}, folder / "universal.ckpt")
    export_model(folder / "universal.ckpt", folder / "universal")
    write_tiny_checkpoint(folder / "plain.ckpt")
    write_daclip(folder / "daclip.pt", words=49408)
    write_daclip(folder / "narrow.pt", outputs=16)
    return folder


@pytest.fixture
def work(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos in ``lq``, links to the models."""
    write_pairs(tmp_path, [f"{name}.png" for name in PHOTOS])
    for path in models.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*flags: str, output: str = "out", source: str = "lq", checkpoint="universal") -> int:
    fixed = ["--checkpoint", checkpoint, "--input", source, "--output", output]
    fixed += ["--device", "cpu", "--nfe", "1"]
    return sample.main([*fixed, *flags], program="sample.py")


def store(*flags: str, output: str = "f.safetensors") -> int:
    fixed = ["features", "--daclip", "daclip.pt", "--output", output, "--device", "cpu"]
    return main.main([*fixed, *flags])


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def rainy() -> torch.Tensor:
    return 3 * torch.randn(512, generator=torch.Generator().manual_seed(5))


def add(path: str, **tensors: torch.Tensor) -> None:
    """Put tensors into a file of features; ``__`` stands for ``/``."""
    known = load_file(path) if Path(path).exists() else {}
    save_file({**known, **{k.replace("__", "/"): v for k, v in tensors.items()}}, path)


def test_stored_features_restore_as_the_photos_own_to_the_bit(work: Path, capsys) -> None:
    assert store("--input", "lq") == 0
    assert "features of 3 photos, 0 tasks, failed 0 -> f.safetensors" in capsys.readouterr().out
    assert sorted(load_file("f.safetensors")) == sorted(
        f"{name}/{kind}" for name in PHOTOS for kind in ("image", "text")
    )
    assert run("--daclip", "daclip.pt") == 0
    assert run("--context", "f.safetensors", output="stored") == 0
    assert files(work / "out") == files(work / "stored")
    assert run("--daclip", "daclip.pt", "--batch_size", "3", output="batched") == 0
    assert files(work / "batched") == files(work / "out")
    assert run("--daclip", "daclip.pt", source="lq/s/a.png", output="alone") == 0
    assert files(work / "alone")["a.png"] == files(work / "out")["s/a.png"]


def test_every_photo_has_its_own(work: Path) -> None:
    """Two equal photos of one name, so of one noise, differ by their features."""
    (work / "lq" / "s" / "a.png").write_bytes((work / "lq" / "a.png").read_bytes())
    assert store("--input", "lq") == 0
    add("f.safetensors", s__a__image=-3 * load_file("f.safetensors")["a/image"])
    assert run("--daclip", "daclip.pt") == 0
    assert run("--context", "f.safetensors", output="stored") == 0
    seen, stored = files(work / "out"), files(work / "stored")
    assert seen["a.png"] == seen["s/a.png"] == stored["a.png"] != stored["s/a.png"]


def test_features_of_a_task_and_of_all_photos(work: Path) -> None:
    assert store("--input", "lq") == 0
    add("f.safetensors", task__rainy=rainy())
    assert run("--context", "f.safetensors", "--task", "rainy") == 0
    assert run("--context", "f.safetensors", output="own") == 0
    assert files(work / "out") != files(work / "own")
    # The photos' own text is what the task replaces; the content is theirs.
    add("task.safetensors", task__rainy=rainy())
    flags = ("--context", "task.safetensors", "--task", "rainy", "--daclip", "daclip.pt")
    assert run(*flags, output="both") == 0
    assert files(work / "both") == files(work / "out")
    # For all photos, of one or two dimensions, but for those with their own.
    features = load_file("f.safetensors")
    add("all.safetensors", text=features["a/text"][None], image=features["a/image"])
    add("all.safetensors", b__text=features["b/text"], b__image=features["b/image"])
    assert run("--context", "all.safetensors", output="all") == 0
    every, own = files(work / "all"), files(work / "own")
    assert (every["a.png"], every["b.png"]) == (own["a.png"], own["b.png"])
    assert every["s/a.png"] != own["s/a.png"]


def test_what_is_not_stored_is_made(work: Path) -> None:
    assert store("--input", "lq/b.png") == 0
    add("f.safetensors", b__image=-load_file("f.safetensors")["b/image"])
    assert run("--context", "f.safetensors", "--daclip", "daclip.pt") == 0
    assert run("--daclip", "daclip.pt", output="made") == 0
    mixed, made = files(work / "out"), files(work / "made")
    assert [name for name in mixed if mixed[name] != made[name]] == ["b.png"]


def test_tiles_pipes_samples_and_trajectories(work: Path) -> None:
    assert store("--input", "lq") == 0
    assert run("--context", "f.safetensors") == 0
    command = [sys.executable, str(ROOT / "sample.py"), "--checkpoint", "universal"]
    command += ["--device", "cpu", "--nfe", "1", "--input", "lq/a.png", "--output", "-"]
    done = subprocess.run([*command, "--daclip", "daclip.pt"], capture_output=True, check=True)
    assert done.stdout == (work / "out" / "a.png").read_bytes()
    large = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 100, 3), np.uint8))
    large.save(work / "lq" / "b.png")
    flags = ("--tile", "64", "--samples", "2", "--sampler", "mr-sde-1")
    assert run("--daclip", "daclip.pt", *flags, source="lq/b.png", output="large") == 0
    large.crop((0, 0, 16, 16)).save(work / "lq" / "b.png")
    assert run("--context", "f.safetensors", "--trajectory", source="lq/b.png") == 0
    assert "trajectory/b.png/strip.png" in files(work / "out")


def test_two_processes_write_what_one_writes(work: Path) -> None:
    assert store("--input", "lq/b.png") == 0
    given = ["--context", "f.safetensors", "--daclip", "daclip.pt"]
    assert run(*given) == 0
    command = [sys.executable, str(ROOT / "sample.py"), "--checkpoint", "universal", *given]
    command += ["--input", "lq", "--output", "two", "--device", "cpu", "--nfe", "1"]
    done = subprocess.run([*command, "--devices", "2"], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert files(work / "two") == files(work / "out")


@pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs PyAV")
@pytest.mark.parametrize("flag", ["--daclip", "--context"])
def test_videos(work: Path, flag: str, capsys) -> None:
    from .test_video import read_clip, write_clip

    write_clip(work / "clip.mp4", sound=False)
    add("f.safetensors", clip__text=rainy(), image=rainy())
    file = "daclip.pt" if flag == "--daclip" else "f.safetensors"
    assert run(flag, file, source="clip.mp4") == 0
    assert len(read_clip(work / "out" / "clip.mp4")[0]) == 7
    assert run(source="clip.mp4", output="other") == 2
    assert "this model takes features" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "this model takes features of each photo, text and image: give --daclip FILE, or"),
        (["--task", "rainy"], "task rainy: this model takes features instead: give --context"),
        (["--daclip", "none.pt"], "--daclip none.pt: no such file"),
        (["--context", "none"], "--context none: no such file"),
        (["--daclip", "lq/a.png"], "lq/a.png is not a readable checkpoint"),
        (["--daclip", "narrow.pt"], "it gives 16 numbers as text, but this model takes 512"),
        (["--daclip", "daclip.pt", "--task", "rainy"], "--context FILE from mrdiff features"),
        (["--context", "lq/a.png"], "lq/a.png is not a readable .safetensors file"),
        (["--context", "f.safetensors"], "f.safetensors has no s/a/text: give --daclip FILE, too"),
        (["--context", "f.safetensors", "--task", "hazy"], "no task/hazy: it has rainy"),
        (["--context", "wide.safetensors"], "wide.safetensors: image has 7, but this model takes"),
        (["--context", "nan.safetensors"], "nan.safetensors: a/text is not finite"),
        (["--context", "key.safetensors"], "key.safetensors: unknown key a/word"),
        (["--checkpoint", "plain.ckpt", "--daclip", "daclip.pt"], "takes no features: leave out"),
        (["--checkpoint", "plain.ckpt", "--context", "f.safetensors"], "takes no features; leave"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_restored(
    work: Path, capsys, flags: list[str], message: str
) -> None:
    add("f.safetensors", image=rainy(), a__text=rainy(), b__text=rainy(), task__rainy=rainy())
    add("wide.safetensors", image=torch.ones(7), text=rainy())
    add("nan.safetensors", image=rainy(), a__text=rainy() * torch.nan)
    add("key.safetensors", image=rainy(), a__word=rainy())
    assert run(*flags) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (work / "out").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["sweep", "--reference", "gt", "--output", "sweep"],
        ["grid", "--output", "g.yaml", "--nfe", "2"],
    ],
)
def test_commands_without_features_say_so(work: Path, command: list[str], capsys) -> None:
    flags = ["--checkpoint", "universal", "--input", "lq", "--device", "cpu"]
    assert main.main([*command, *flags]) != 0
    assert "this model needs features of each photo, text and image" in capsys.readouterr().err


def test_a_broken_photo_has_no_features_and_the_rest_goes_on(work: Path, capsys) -> None:
    (work / "lq" / "c.png").write_bytes(b"nothing")
    assert store("--input", "lq") == 1
    captured = capsys.readouterr()
    assert "failed: lq/c.png: not an image" in captured.err
    assert "features of 3 photos, 0 tasks, failed 1" in captured.out
    assert len(load_file("f.safetensors")) == 6


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "nothing to do: give photos by --input"),
        (["--input", "none"], "--input none: no such file or folder"),
        (["--input", "empty"], "--input empty: no images in this folder"),
        (["--input", "lq", "--output", "f.pt"], "--output f.pt: must be a .safetensors file"),
        (["--input", "lq", "--daclip", "none.pt"], "--daclip none.pt: no such file"),
        (["--input", "lq", "--daclip", "lq/a.png"], "lq/a.png is not a readable checkpoint"),
        (["--tasks", "a/text"], "--tasks: 'a/text' is no name of a task"),
        (["--input", "lq"], "lq/a.jpg and lq/a.png are both a: rename one"),
    ],
)
def test_wrong_flags_of_features(work: Path, flags: list[str], message: str, capsys) -> None:
    (work / "empty").mkdir()
    if "both" in message:
        Image.new("RGB", (9, 9)).save(work / "lq" / "a.jpg")
    assert store(*flags) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (work / "f.safetensors").exists()


def test_tasks_are_stored(work: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def encode(path: Path, texts: list[str]) -> torch.Tensor:
        if "missing" in texts:
            raise DACLIPError("install it")
        return torch.stack([torch.full((512,), float(len(text))) for text in texts])

    monkeypatch.setattr("mrdiff.cli.features.run.encode_texts", encode)
    assert store("--tasks", "rainy", "hazy") == 0
    stored = load_file("f.safetensors")
    assert {key: float(value[0]) for key, value in stored.items()} == {
        "task/rainy": 5,
        "task/hazy": 4,
    }
    assert run("--context", "f.safetensors", "--task", "hazy", "--daclip", "daclip.pt") == 0
    assert store("--tasks", "missing") == 2
    assert "install it" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="needs open_clip")
def test_tasks_through_the_text_tower(work: Path) -> None:
    assert store("--tasks", "rainy", "low-light", "--input", "lq") == 0
    assert {"task/rainy", "task/low-light", "s/a/image"} < {*load_file("f.safetensors")}
    assert run("--context", "f.safetensors", "--task", "low-light") == 0
