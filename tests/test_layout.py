"""Imports point one way, and the public names are there."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each module may import modules of a lower or, within mrdiff, of its own rank.
RANKS = {
    "mrdiff.schedule": 0,
    "mrdiff.noise": 0,
    "mrdiff.photo": 0,
    "mrdiff.losses": 0,
    "mrdiff.optim": 0,
    "mrdiff.lion": 0,
    "mrdiff.freezing": 0,
    "mrdiff.networks": 0,
    "mrdiff.int8": 0,
    "mrdiff.backends": 1,
    "mrdiff.metrics": 0,
    "mrdiff.process": 1,
    "mrdiff.parameterization": 2,
    "mrdiff.description": 1,
    "mrdiff.lora": 2,
    "mrdiff.presets": 0,
    "mrdiff.gridfile": 2,
    "mrdiff.timegrid": 3,
    "mrdiff.clock": 3,
    "mrdiff.denoiser": 3,
    "mrdiff.conditions": 4,
    "mrdiff.features": 5,
    "mrdiff.daclip": 1,
    "mrdiff.objective": 4,
    "mrdiff.residual": 4,
    "mrdiff.tiling": 4,
    "mrdiff.footprint": 4,
    "mrdiff.tiler": 5,
    "mrdiff.comparison": 1,
    "mrdiff.kinds": 1,
    "mrdiff.ensemble": 7,
    "mrdiff.checkpoint": 4,
    "mrdiff.keeping": 5,
    "mrdiff.quantization": 6,
    "mrdiff.folder": 0,
    "mrdiff.export": 5,
    "mrdiff.official": 6,
    "mrdiff.threshold": 4,
    "mrdiff.averaging": 4,
    "mrdiff.multistep": 4,
    "mrdiff.oracle": 4,
    "mrdiff.transfer": 5,
    "mrdiff.compat": 5,
    "mrdiff.baselines": 5,
    "mrdiff.sampler": 6,
    "mrdiff.choice": 7,
    "mrdiff.gridsearch": 7,
    "mrdiff.calibration": 8,
    "mrdiff.spectrum": 8,
    "mrdiff.module": 8,
    "mrdiff.restore": 8,
    "mrdiff.cli": 9,
    "mrdiff.__main__": 10,
}


def modules() -> list[Path]:
    packages = ("mrdiff", "datamodules", "callbacks")
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def rank(name: str) -> int | None:
    return max((r for key, r in RANKS.items() if f"{name}.".startswith(f"{key}.")), default=None)


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_point_down(path: Path) -> None:
    name = dotted(path)
    for target in imported(path):
        package = target.partition(".")[0]
        if name.startswith("mrdiff"):
            assert package not in ("datamodules", "callbacks"), f"{name} imports {target}"
            mine, theirs = rank(name), rank(target)
            if name != "mrdiff" and theirs is not None:
                assert mine is not None, f"give {name} a rank"
                same_home = name.split(".")[1] == target.split(".")[1]
                assert theirs < mine or same_home, f"{name} imports {target}, which is above it"
        elif name.startswith("datamodules") and package == "mrdiff":
            assert target.startswith("mrdiff.photo"), f"{name} imports {target}"
        elif name.startswith("datamodules"):
            assert package != "callbacks", f"{name} imports {target}"


def test_every_module_has_a_rank() -> None:
    ranked = [dotted(path) for path in modules() if dotted(path).startswith("mrdiff.")]
    assert [name for name in ranked if rank(name) is None] == []


def test_public_names_can_be_imported() -> None:
    mrdiff = importlib.import_module("mrdiff")
    for name in mrdiff.__all__:
        assert getattr(mrdiff, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = mrdiff.Missing


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_modules_are_small_and_documented(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
