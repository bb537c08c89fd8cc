"""What a folder holds: photos, pictures that are not read, and what cannot be looked into."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from pathlib import Path

import pytest

from mrdiff.photo import PhotoError, find_images, list_images, name_of

links = pytest.mark.skipif(os.name != "posix", reason="needs links and pipes")


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def photos(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder).photos]


def test_photos_by_every_suffix_and_other_pictures_apart(tmp_path: Path) -> None:
    read = ["a.PNG", "b.jfif", "c.jpe", "d.avif", "e.jp2", "f.jxl", "s/g.webp"]
    unread = ["h.heic", "i.mp4", "j.MTS", "k.cr2", "s/l.svg"]
    put(tmp_path, *read, *unread, ".hidden/m.png", ".n.png", "notes.txt", "Thumbs.db", "no_suffix")
    found = find_images(tmp_path)
    assert photos(tmp_path) == read
    assert [path.relative_to(tmp_path).as_posix() for path in found.unread] == unread
    assert found.failed == {}


@links
def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    put(tmp_path, "in/a.png", "in/s/b.png", "real/c.png", "real/t/d.png")
    for link, target in {
        "in/album": "../real",
        "in/twice": "../real/t",
        "in/s/up": "..",
        "in/self": "self",
        "in/round.png": "round.png",
        "in/gone.png": "nowhere",
        "real/back": "../in/s",
    }.items():
        (tmp_path / link).symlink_to(target)
    found = find_images(tmp_path / "in")
    assert photos(tmp_path / "in") == [
        "a.png",
        "album/back/b.png",
        "album/c.png",
        "album/t/d.png",
        "gone.png",  # it fails when it is read
        "round.png",
        "s/b.png",
        "twice/d.png",
    ]
    circles = {str(path.relative_to(tmp_path / "in")) for path in found.failed}
    assert circles == {"s/up", "album/back/up"}
    with pytest.raises(PhotoError, match="up: a link to a folder that it lies in"):
        list_images(tmp_path / "in")


@links
def test_two_folders_of_links_to_each_other_end(tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        put(tmp_path, f"{one}/{one}.png")
        (tmp_path / one / other).symlink_to(f"../{other}")
    assert photos(tmp_path) == ["a/a.png", "a/b/b.png", "b/a/a.png", "b/b.png"]


@links
def test_a_pipe_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    found = find_images(tmp_path)
    assert photos(tmp_path) == ["a.png"]
    assert found.failed == {tmp_path / "b.png": "a pipe, not a file"}


@links
def test_a_locked_folder_is_named() -> None:
    root = os.geteuid() == 0  # who may read everything
    with tempfile.TemporaryDirectory() as name:  # that of pytest is for its owner alone
        folder = Path(name)
        put(folder, "a.png", "half/c.png", "locked/b.png")
        folder.chmod(0o755)
        (folder / "half").chmod(0o444)  # its names can be seen and nothing else
        (folder / "locked").chmod(0)
        if root:
            os.seteuid(65534)
        try:
            found = find_images(folder)
            with pytest.raises(PhotoError, match="locked: Permission denied"):
                list_images(folder)
        finally:
            if root:
                os.seteuid(0)
            for locked in ("half", "locked"):
                (folder / locked).chmod(0o700)
    assert [path.name for path in found.photos] == ["a.png", "c.png"]  # reading c.png fails
    assert found.failed == {folder / "locked": "Permission denied"}


def test_the_depth_of_a_tree_is_no_matter(tmp_path: Path) -> None:
    put(tmp_path, f"{'a/' * 600}b.png")
    assert len(find_images(tmp_path).photos) == 1


def test_accents_are_the_same_however_written() -> None:
    for form in ("NFC", "NFD"):
        path = Path("in", unicodedata.normalize(form, "é/ü.png"))
        assert name_of(path, Path("in")) == unicodedata.normalize("NFC", "é/ü")
