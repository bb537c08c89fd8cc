"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from mrdiff.system.files import appearing, is_free, replacing, write_text


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_new_file_and_its_folders_appear(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "ü.txt"
    write_text(path, "é")
    assert path.read_bytes() == "é".encode()
    assert names(path.parent) == ["ü.txt"]


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "links" / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.parent.mkdir()
    link.symlink_to(file)
    write_text(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["file", "links"]
    assert names(link.parent) == ["link"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(self: Path, *_: Any, **__: Any) -> int:
        self.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(path, "new")
    assert caught.value.filename == str(path)  # not the temporary one
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError("x"), SystemExit(1)])
def test_whatever_stops_it_leaves_nothing_behind(failure: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def stopped() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(type(failure)):
        stopped()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_long_name_is_no_problem_and_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / ("n" * 250), "long")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_text(tmp_path / "folder", "text")
    with pytest.raises(OSError, match="inside"):
        write_text(tmp_path / ("n" * 250) / "inside", "text")
    assert names(tmp_path) == ["folder", "n" * 250]


def test_a_folder_appears_when_all_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "whole"
    assert is_free(folder)

    def stopped() -> None:
        with appearing(folder) as made:
            (made / "one").write_text("1")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stopped()
    assert names(folder.parent) == []
    with appearing(folder) as made:
        (made / "one").write_text("1")
        assert not folder.exists()
    assert names(folder.parent) == ["whole"]
    assert names(folder) == ["one"]
    assert not is_free(folder)
    assert not is_free(folder / "one")
