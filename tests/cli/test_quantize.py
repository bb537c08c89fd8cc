"""``mrdiff quantize`` through the command: the table, what the checkpoint holds, bad input."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mrdiff.acceleration.backends import OpenVINONetwork
from mrdiff.acceleration.ranges import read_ranges
from mrdiff.checkpoints.description import CheckpointError
from mrdiff.cli.export import command as export
from mrdiff.cli.quantize import command as quantize
from mrdiff.cli.sample import command as sample
from mrdiff.metrics import psnr
from mrdiff.photo import read_rgb
from mrdiff.restoration.restorer import Restorer
from tests.acceleration.test_backends import needs_openvino, without_bf16
from tests.tiny_model import write_pairs, write_tiny_checkpoint

NAMES = [f"{letter}.png" for letter in "abcde"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_pairs(tmp_path, NAMES)
    write_tiny_checkpoint(tmp_path / "tiny.ckpt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*flags: str, checkpoint: str = "tiny.ckpt", photos: str = "lq") -> int:
    given = [] if "--input" in flags else ["--input", photos]
    fixed = ["--checkpoint", checkpoint, *given, "--nfe", "2"]
    return quantize.main([*fixed, *flags], program="mrdiff quantize")


def table(printed: str) -> dict[str, list[float]]:
    lines = [re.split(r"\s{2,}", line) for line in printed.splitlines()]
    return {line[0]: [float(cell) for cell in line[1:]] for line in lines[1:-1]}


def test_it_keeps_ranges_and_tells_the_loss(work: Path, capsys) -> None:
    assert run("--reference", "gt") == 0
    printed = capsys.readouterr().out
    heads = ["PSNR in dB", "int8 to float32", "float32 to reference", "int8 to reference"]
    assert re.split(r"\s{2,}", printed.splitlines()[0]) == heads
    rows = table(printed)
    assert list(rows) == ["a", "e", "mean"]  # every fourth
    for row in rows.values():
        assert 30 < row[0] < 100
        assert abs(row[1] - row[2]) < 0.5
    assert rows["mean"] == pytest.approx(
        [(x + y) / 2 for x, y in zip(rows["a"], rows["e"], strict=True)], abs=0.01
    )
    ranges = read_ranges("tiny.ckpt")
    assert f"{len(ranges)} convolutions, watched on 3 photos -> tiny.ckpt" in printed
    network = torch.load("tiny.ckpt", weights_only=True)["state_dict"]
    assert {f"denoiser.network.{name}.weight" for name in ranges} <= set(network)


def test_without_references_there_is_one_column(work: Path, capsys) -> None:
    os.remove("gt/e.png")
    assert run() == 0
    alone = table(capsys.readouterr().out)
    assert {len(row) for row in alone.values()} == {1}
    assert run("--reference", "gt") == 0
    printed = capsys.readouterr().out
    assert "1 of 2 photos have no reference in gt" in printed
    some = table(printed.replace("1 of 2 photos have no reference in gt\n", ""))
    assert [len(row) for row in some.values()] == [3, 1, 3]
    assert [row[0] for row in some.values()] == [row[0] for row in alone.values()]
    assert some["mean"][1:] == some["a"][1:]


def test_the_crops_of_photo_mask_and_reference_are_of_the_same_place(work: Path, capsys) -> None:
    write_tiny_checkpoint(work / "holes.ckpt", mask=True, tasks=("a", "b"))
    (work / "masks").mkdir()
    rows = np.random.default_rng(1).random((40, 48)) > 0.3
    for name in NAMES:
        Image.fromarray(rows.astype(np.uint8) * 255).save(work / "masks" / name)
    flags = ["--reference", "gt", "--mask", "masks", "--crop", "32", "--task", "b"]
    assert run(*flags, checkpoint="holes.ckpt") == 0
    printed = table(capsys.readouterr().out)
    restorer = Restorer.from_checkpoint("holes.ckpt", device="cpu", nfe=2, task="b")
    lq, gt = (read_rgb(Path(kind, "e.png"))[None, :, 4:36, 8:40] for kind in ("lq", "gt"))
    mask = torch.from_numpy(rows[None, None, 4:36, 8:40]).float()
    expected = psnr(restorer.restore(lq, ["e"], mask=mask), gt)
    assert printed["e"][1] == pytest.approx(float(expected), abs=0.006)


def test_photos_of_other_kinds_are_watched_as_they_are_restored(work: Path, capsys) -> None:
    for name, mode in {"b.png": "L", "c.png": "RGBA", "d.png": "P"}.items():
        with Image.open(work / "lq" / name) as image:
            image.convert(mode).save(work / "lq" / name)
    assert run() == 0
    shown = capsys.readouterr()
    assert "watched on 3 photos" in shown.out
    assert "left out" not in shown.err


def test_too_little_memory_is_one_line(work: Path, monkeypatch, capsys) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Restorer, "restore", fail)
    assert run() == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "mrdiff quantize: error: out of memory: try a smaller --crop than 384"


def test_an_exported_folder_keeps_them_and_so_does_an_export(work: Path) -> None:
    assert run() == 0
    flags = ["--checkpoint", "tiny.ckpt", "--output", "folder"]
    assert export.main(flags) == 0
    assert read_ranges("folder") == read_ranges("tiny.ckpt")
    assert run(checkpoint="folder", photos="lq/b.png") == 0
    assert read_ranges("folder") != read_ranges("tiny.ckpt")


def test_a_dry_run_changes_nothing(work: Path, capsys) -> None:
    before = (work / "tiny.ckpt").read_bytes()
    assert run("--dry_run") == 0
    assert "convolutions, watched on 3 photos\n" in capsys.readouterr().out
    assert (work / "tiny.ckpt").read_bytes() == before


def test_a_broken_photo_is_named_and_left_out(work: Path, capsys) -> None:
    (work / "lq" / "b.png").write_bytes(b"nothing")
    with Image.open(work / "gt" / "c.png") as image:
        image.crop((0, 0, 20, 20)).save(work / "gt" / "c.png")
    assert run("--reference", "gt") == 0
    shown = capsys.readouterr()
    assert "left out: lq/b.png: not an image" in shown.err
    assert "left out: gt/c.png: another size than lq/c.png" in shown.err
    assert "watched on 2 photos" in shown.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint", "none.ckpt"], "no checkpoint at none.ckpt"),
        (["--input", "none"], "--input none: no such file or folder"),
        (["--reference", "none"], "--reference none: no such file or folder"),
        (["--mask", "lq"], "this model was trained without masks; leave it out"),
        (["--context", "none"], "--context none: no such file"),
        (["--task", "rainy"], "rainy"),
        (["--crop", "8"], "crop must be at least 32 px"),
        (["--sampler", "mr-ode"], "unknown sampler mr-ode"),
        (["--checkpoint", "lq/a.png"], "lq/a.png is not a readable checkpoint"),
        (["--input", "empty"], "no images in this folder"),
        (["--input", "broken"], "none of the 1 photos can be used"),
    ],
)
def test_bad_input_is_one_line(work: Path, flags: list[str], message: str, capsys) -> None:
    (work / "empty").mkdir()
    (work / "broken").mkdir()
    (work / "broken" / "x.png").write_bytes(b"nothing")
    assert run(*flags) in (1, 2)
    assert message in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(CheckpointError, match="has no 8-bit ranges: first mrdiff quantize"):
        read_ranges("tiny.ckpt")


@pytest.mark.parametrize("stored", [[1.0], {"a": 1.0}, {"a": [1.0]}, {"a": ["x", "y"]}])
def test_broken_ranges_are_one_line(work: Path, stored: object) -> None:
    content = torch.load("tiny.ckpt", weights_only=True)
    content["mrdiff"]["int8"] = stored
    torch.save(content, "tiny.ckpt")
    with pytest.raises(CheckpointError, match="its 8-bit ranges are broken: mrdiff quantize"):
        read_ranges("tiny.ckpt")


def restore(output: str, *flags: str) -> int:
    fixed = ["--checkpoint", "tiny.ckpt", "--input", "lq", "--output", output, "--nfe", "2"]
    return sample.main([*fixed, *flags], program="sample.py")


def test_sampling_without_ranges_says_what_to_do(work: Path, capsys) -> None:
    assert restore("out", "--backend", "openvino", "--precision", "int8") == 2
    error = capsys.readouterr().err
    assert "tiny.ckpt has no 8-bit ranges: first mrdiff quantize --checkpoint tiny.ckpt" in error
    assert error.count("\n") == 1


@needs_openvino
def test_sampling_computes_what_the_table_says(
    work: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_bf16(monkeypatch)
    assert run() == 0
    printed = table(capsys.readouterr().out)
    restorers = [Restorer.from_checkpoint("tiny.ckpt", device="cpu", nfe=2) for _ in range(2)]
    network = restorers[1].denoiser.network
    restorers[1].denoiser.network = OpenVINONetwork(
        network, precision="int8", ranges=read_ranges("tiny.ckpt")
    )
    for name in ("a", "e"):
        photo = read_rgb(Path("lq", f"{name}.png"))
        plain, small = (restorer(photo, name=name) for restorer in restorers)
        found = -10 * float((plain - small).double().square().mean().log10())
        assert found == pytest.approx(printed[name][0], abs=1.5)


@needs_openvino
def test_the_command_samples_in_8_bits(work: Path) -> None:
    assert run() == 0
    assert restore("plain", "--device", "cpu") == 0
    assert restore("small", "--backend", "openvino", "--precision", "int8") == 0
    for name in NAMES:
        plain, small = (
            np.asarray(Image.open(f"{kind}/{name}"), int) for kind in ("plain", "small")
        )
        assert abs(plain - small).max() <= 2
