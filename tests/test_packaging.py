"""The sdist and the wheel, and the wheel at work in a folder that knows nothing of the checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
from PIL import Image

import mrdiff
from tests.places import ROOT

pytest.importorskip("build", reason="needs the package build, of mrdiff[dev]")
PACKAGES = {"mrdiff", "datamodules", "callbacks", "configs"}
NOT_SOURCE = ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist", "out", "runs")


def run(*command: str | Path, cwd: Path) -> str:
    """What it printed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both; the wheel is built from the sdist."""
    folder = tmp_path_factory.mktemp("packaging")
    copytree(ROOT, folder / "source", ignore=NOT_SOURCE)
    options = ["--no-isolation", "--outdir", folder / "dist"]
    run(sys.executable, "-m", "build", *options, folder / "source", cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def program(dist: Path) -> Path:
    """The programs of a new environment with the wheel, and the libraries of this one."""
    venv = dist.parent / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=dist)
    python, (wheel,) = venv / "bin" / "python", dist.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    run(*pip, wheel, cwd=dist)
    (site,) = venv.glob("lib/*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return venv / "bin"


def files_of(folder: Path) -> set[str]:
    """All that a package should have."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_the_wheel_has_the_packages_and_nothing_else(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == set[str]().union(*(files_of(ROOT / package) for package in PACKAGES))
    assert "mrdiff/models/universal/model.safetensors" in names


def test_the_sdist_has_what_the_wheel_is_made_of(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert folders == {*PACKAGES, "mrdiff.egg-info"}
    assert {"README.md", "LICENSE", "pyproject.toml"} <= names


def test_the_installed_wheel_works(program: Path, tmp_path: Path) -> None:
    assert run(program / "mrdiff", "--version", cwd=tmp_path) == f"mrdiff {mrdiff.__version__}\n"
    where = "import mrdiff; from mrdiff import Restorer; print(mrdiff.__file__)"
    printed = run(program / "python", "-c", where, cwd=tmp_path)
    assert Path(printed.strip()).is_relative_to(program.parent)
    assert "derain.yaml" in run(program / "mrdiff", "train", cwd=tmp_path)
    Image.linear_gradient("L").convert("RGB").resize((64, 48)).save(tmp_path / "photo.jpg")
    run(program / "mrdiff", "sample", "photo.jpg", cwd=tmp_path)
    assert Image.open(tmp_path / "photo_restored.jpg").size == (64, 48)
