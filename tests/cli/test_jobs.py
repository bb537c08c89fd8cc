"""What is written for which photo: no file twice, no original, nothing that cannot be written."""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mrdiff.cli.common import paths
from mrdiff.cli.common import targets as targets_module
from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.jobs import Photo, find_photos
from mrdiff.cli.common.paths import check_file, check_output, check_targets
from mrdiff.cli.common.targets import alike, plan_targets

SUFFIXES = st.sampled_from([".png", ".jpg", ".gif", ".PNG", ".ppm"])
NAMES = st.tuples(st.sampled_from("aAé"), st.lists(SUFFIXES, min_size=1, max_size=3))

FILES = st.lists(NAMES.map(lambda parts: parts[0] + "".join(parts[1])), unique=True, max_size=8)


def targets(names: list[str], *, suffix: str | None = None) -> list[str]:
    photos = [Photo(Path("in", name), Path(name)) for name in names]
    jobs = plan_targets(photos, Path("out"), suffix=suffix)
    return [job.target.relative_to("out").as_posix() for job in jobs]


def test_what_is_alike_keeps_apart() -> None:
    names = ["a.jpg", "a.png", "a.jpg.png"]
    assert targets(names, suffix=".png") == ["a.jpg.2.png", "a.png", "a.jpg.png"]
    assert targets(["a.gif", "a.png", "a.gif.png"]) == ["a.gif.2.png", "a.png", "a.gif.png"]
    assert targets(["a.gif", "a.ppm"]) == ["a.gif.png", "a.ppm.png"]
    # A folder has the name that the file would get.
    assert targets(["a.gif", "a.png", "a.gif.png/b.png"])[0] == "a.gif.2.png"


@given(FILES, st.sampled_from([None, ".png", ".jpg"]))
def test_no_two_photos_are_written_into_one_file(names, suffix) -> None:
    written = targets(names, suffix=suffix)
    assert len({*written}) == len(written)


@given(FILES)
def test_nor_where_case_makes_no_difference(names) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets_module, "folding", lambda _: alike)
        written = targets(names)
    assert len({alike(name) for name in written}) == len(written)


def test_what_a_file_system_takes_for_one_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twins = [unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD")]
    assert targets(["A.png", "a.png", *twins]) == ["A.png", "a.png", *twins]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(targets_module, "folding", lambda _: alike)
    assert targets(["A.png", "a.png"]) == ["A.png", "a.png.png"]
    assert "note: out does not tell a.png from another" in capsys.readouterr().err


def test_this_file_system_is_tried(tmp_path: Path) -> None:
    fold = paths.folding(tmp_path / "not" / "there")
    (tmp_path / "a").touch()
    assert (fold("A") == fold("a")) == (tmp_path / "A").exists()
    assert os.listdir(tmp_path) == ["a"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.gif", "in/s/b.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(name)
    return tmp_path


def test_an_original_is_not_overwritten_by_another_spelling(photos: Path) -> None:
    Path("link").symlink_to("in")
    Path("out/s").mkdir(parents=True)
    Path("out/s/b.png").symlink_to("../../in/s/b.png")
    for output in ("in", "./in/../in", str(photos / "in"), "link", "out"):
        with pytest.raises(CommandError, match="would overwrite"):
            plan_targets(find_photos(Path("in")), Path(output))


def test_partners_are_found_however_accents_are_written(photos: Path) -> None:
    for folder, form in (("in", "NFC"), ("gt", "NFD")):
        for name in ("s/é.png", "gt/ü.png"):
            path = Path(folder, unicodedata.normalize(form, name))
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(path)
    found = find_photos(Path("in"), reference=Path("gt"))
    assert sum(photo.reference is not None for photo in found) == 2
    assert {photo.key for photo in found} >= {unicodedata.normalize("NFC", "s/é")}


def test_a_partner_is_the_one_file_of_the_name(photos: Path) -> None:
    for name in ("in/a.png", "gt/a.gif", "gt/a.png", "gt/other/b.png", "in/c.png", "gt/c.gif"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(name)
    Image.new("RGB", (8, 8)).save("in/a.webp")  # of either
    found = {str(p.relative): p.reference for p in find_photos(Path("in"), reference=Path("gt"))}
    assert found == {
        "a.gif": Path("gt/a.gif"),
        "a.png": Path("gt/a.png"),
        "a.webp": None,
        "c.png": Path("gt/c.gif"),
        "s/b.png": Path("gt/other/b.png"),
    }


def test_a_single_file_is_told_what_it_is(photos: Path) -> None:
    Path("in/a.gif").rename("photo.dat")
    Path("text.txt").write_text("text")
    os.mkfifo("pipe.png")
    for name, said in {
        "photo.dat": "it holds a GIF, but is not named so: rename it; photos are .apng, ",
        "text.txt": "not an image file that is read; photos are .apng, ",
        "pipe.png": "neither a file nor a folder",
    }.items():
        with pytest.raises(CommandError, match=said):
            find_photos(Path(name))


def test_a_folder_without_photos_says_what_there_is(photos: Path) -> None:
    for name in ("a.heic", "b.heic", "c.mp4"):
        Path("other", name).parent.mkdir(exist_ok=True)
        Path("other", name).touch()
    said = r"no images in this folder; 2 \.heic: they are not read: other/a.heic, other/b.heic; "
    with pytest.raises(CommandError, match=said + r"1 \.mp4: clips are restored one by one"):
        find_photos(Path("other"))


def test_what_lies_beside_the_photos_is_told(photos: Path, capsys) -> None:
    Path("in/x.cr2").touch()
    os.mkfifo("in/y.png")
    assert len(find_photos(Path("in"))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "left out: in/y.png: a pipe, not a file",
        "left out: 1 .cr2: they are not read: in/x.cr2",
    ]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("out/there/a.png/b.png", "out/there/a.png: "),
        ("out/there", "out/there is a folder already"),
        (f"out/{'n' * 252}.png", "File name too long"),
        (f"out/{'n' * 256}/a.png", "File name too long"),
        ("out/file/a.png", "out/file is not a folder"),
        ("out/gone/a.png", "out/gone is not a folder"),
    ],
)
def test_what_cannot_be_written_is_known_before(photos: Path, target: str, said: str) -> None:
    Path("out/there").mkdir(parents=True)
    Path("out/file").touch()
    Path("out/gone").symlink_to("nowhere")
    before = sorted(photos.rglob("*"))
    if "b.png" in target:
        Path("out/there/a.png").touch()
        before.append(photos / "out/there/a.png")
        said = "out/there/a.png is not a folder"
    with pytest.raises(CommandError, match=said):
        check_targets([Path("out/fine.png"), Path(target)], Path("out"))
    assert sorted(photos.rglob("*")) == sorted(before)
    check_targets([Path("out/fine.png"), Path("out/new/folder/a.png")], Path("out"))
    assert sorted(photos.rglob("*")) == sorted(before)


def test_a_folder_that_may_not_be_written_is_named(photos: Path, monkeypatch) -> None:
    def refused(self: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "touch", refused)
    for check in (
        lambda: check_output(Path("out"), Path("out")),
        lambda: check_file(Path("log"), flag="--log"),
    ):
        with pytest.raises(CommandError, match=r"--(output out|log log).*: Permission denied"):
            check()


def test_a_log_may_be_a_device_but_no_folder(photos: Path) -> None:
    check_file(Path(os.devnull), flag="--log")
    with pytest.raises(CommandError, match="--log in: is a folder"):
        check_file(Path("in"), flag="--log")
