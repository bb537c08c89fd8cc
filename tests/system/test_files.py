"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mrdiff.system import files
from mrdiff.system.files import (
    appearing,
    clear_leftovers,
    is_free,
    replacing,
    temporary_in,
    write_text,
)
from tests.places import ROOT


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


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="needs /dev/null")
def test_what_is_no_file_is_never_replaced() -> None:
    with pytest.raises(OSError, match="it is there and is not a file"):
        write_text(Path("/dev/null"), "text")


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


WRITE_AND_DIE = """
import os, sys
from pathlib import Path
from mrdiff.system.files import appearing, replacing
folder = Path(sys.argv[1])
with replacing(folder / "file") as temporary, appearing(folder / "folder") as made:
    temporary.write_text("half")
    (made / "one").write_text("1")
    os._exit(9)
"""


def killed(folder: Path) -> None:
    """Leave a half-written file and a folder of a process that has died."""
    subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(folder)], cwd=ROOT, check=False)


def test_what_killed_writers_left_goes_and_what_is_written_stays(tmp_path: Path) -> None:
    killed(tmp_path)
    assert len(names(tmp_path)) == 2
    users = (".mrdiff.yaml", ".mrdiff.notes.tmp", "mrdiff.tmp")
    for name in users:
        (tmp_path / name).touch()
    with replacing(tmp_path / "live") as live, appearing(tmp_path / "lively") as lively:
        assert len(names(tmp_path)) == 4  # the dead ones went with the first
        live.touch()
        killed(tmp_path)
        clear_leftovers(tmp_path)
        assert names(tmp_path) == sorted([*users, live.name, lively.name])
    assert names(tmp_path) == sorted([*users, "live", "lively"])


def test_what_another_machine_writes_stays_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(files, "_place", lambda: "0" * 8)
        fresh, old = (temporary_in(tmp_path) for _ in range(2))
    for path in (fresh, old):
        path.mkdir()
    os.utime(old, (0, 0))
    clear_leftovers(tmp_path)
    assert names(tmp_path) == [fresh.name]
