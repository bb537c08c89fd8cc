"""sample.py on a zoo of odd files: the good come back faithful, the bad are named, it goes on."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch

from mrdiff.cli.sample import command as sample
from mrdiff.photo import FORMATS, PhotoError, encode_photo, read_photo
from tests import zoo
from tests.tiny_model import write_tiny_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # its remarks on broken EXIF


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that changes nothing."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("model") / "same.ckpt", identity=True)


def run(checkpoint: Path, source: Path, output: Path, *flags: str) -> int:
    fixed = ["--checkpoint", str(checkpoint), "--input", str(source), "--output", str(output)]
    return sample.main([*fixed, "--device", "cpu", "--nfe", "1", *flags], program="sample.py")


def target_of(name: str) -> str:
    path = Path(name)
    return name if path.suffix.lower() in FORMATS else path.with_suffix(".png").name


def test_the_good_come_back_as_they_were(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = zoo.good()
    zoo.write(tmp_path / "in", files)
    assert run(checkpoint, tmp_path / "in", tmp_path / "out") == 0, capsys.readouterr().err
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {target_of(name) for name in files}
    for name, content in files.items():
        before, after = read_photo(content), read_photo(tmp_path / "out" / target_of(name))
        assert after.bits == before.bits, name
        assert after.image.shape == before.image.shape, name
        assert (after.image - before.image).abs().max() < 1e-6, name
        assert after.metadata.icc == before.metadata.icc, name
    said = capsys.readouterr()
    assert f"restored {len(files)}, skipped 0, failed 0" in said.out
    assert "pages.tif: the first of 2 pictures" in said.err


def test_what_cannot_come_back_exactly_comes_back_close(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = zoo.lossy()
    zoo.write(tmp_path / "in", files)
    assert run(checkpoint, tmp_path / "in", tmp_path / "out") == 0, capsys.readouterr().err
    for name, content in files.items():
        before, after = read_photo(content), read_photo(tmp_path / "out" / target_of(name))
        assert after.image.shape == before.image.shape, name
        assert (after.image - before.image).abs().mean() < 0.03, name
    assert read_photo(tmp_path / "out" / "photo.jpg").metadata.exif is not None
    said = capsys.readouterr().err
    assert "print.tif: CMYK became RGB" in said
    assert "deep_inside.jpg: 16 bits became 8" in said


def test_the_bad_are_named_and_the_rest_goes_on(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = zoo.bad()
    zoo.write(tmp_path / "in", {name: content for name, (content, _) in bad.items()})
    zoo.write(tmp_path / "in", {"fine.png": zoo.encoded(zoo.picture(), "PNG")})
    (tmp_path / "in" / "nowhere.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "in" / "folder.png").mkdir()
    locked = tmp_path / "in" / "locked.png"
    locked.write_bytes(zoo.encoded(zoo.picture(), "PNG"))
    locked.chmod(0)
    readable = os.access(locked, os.R_OK)  # by root everything is
    assert run(checkpoint, tmp_path / "in", tmp_path / "out") == 1
    said = capsys.readouterr()
    lines = {line.split(": ")[1]: line for line in said.err.splitlines() if "failed: " in line}
    expected = {name: reason for name, (_, reason) in bad.items()} | {"nowhere.png": "no such file"}
    if not readable:
        expected["locked.png"] = "Permission denied"
    assert {Path(key).name for key in lines} == set(expected)
    for path, line in lines.items():
        assert expected[Path(path).name] in line, line
    fine = ["fine.png", *(["locked.png"] if readable else [])]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == fine
    assert f"restored {len(fine)}, skipped 0, failed {len(expected)}" in said.out


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif", "bmp"])
def test_one_format_for_all(checkpoint: Path, tmp_path: Path, kind: str) -> None:
    files = {
        "a.png": zoo.encoded(zoo.picture(), "PNG"),
        "a.jpg": zoo.encoded(zoo.picture("L"), "JPEG"),
        "b.gif": zoo.encoded(zoo.picture().quantize(8), "GIF"),
    }
    zoo.write(tmp_path / "in", files)
    assert run(checkpoint, tmp_path / "in", tmp_path / "out", "--format", kind) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    both = {"png": {"a.png", "a.jpg.png"}, "jpg": {"a.jpg", "a.png.jpg"}}
    assert names == both.get(kind, {f"a.png.{kind}", f"a.jpg.{kind}"}) | {f"b.{kind}"}


def test_flipped_bytes_raise_nothing_but_photo_errors() -> None:
    """2000 valid files with some bytes changed: read, or refused in one line."""
    files = [*zoo.good().items(), *zoo.lossy().items()]
    files = [(name, content) for name, content in files if len(content) < 5000]
    rng = random.Random(0)
    refused = []
    for index in range(2000):
        name, content = files[index % len(files)]
        changed = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 8))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        if rng.random() < 0.1:
            del changed[rng.randrange(len(changed)) :]
        try:
            photo = read_photo(bytes(changed), name=name)
        except PhotoError as error:
            refused.append((name, str(error)))
            continue
        assert torch.isfinite(photo.image).all()
        assert 0 <= photo.image.min() <= photo.image.max() <= 1
        if index % 10 == 0:
            back = read_photo(encode_photo(photo.image, "PNG", photo))
            assert (back.image - photo.image).abs().max() < 0.51 / 255
    assert 200 < len(refused) < 1900
    for name, message in refused:
        assert message.startswith(f"{name}: "), message
        assert "\n" not in message
