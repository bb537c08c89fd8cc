"""Objects as plain values and back, and which classes may be named."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from mrdiff import LinearTheta, MRDiffusion, MRProcess, TabulatedTheta, load_model
from mrdiff.checkpoints.description import (
    CheckpointError,
    build,
    build_process,
    describe,
    public_path,
)
from mrdiff.diffusion.schedule import MRSchedule
from mrdiff.networks import UNet
from mrdiff.training.transfer import init_from
from tests.tiny_training import tiny_unet, trained


def test_description_round_trip() -> None:
    for value in (LinearTheta(0.01), TabulatedTheta.irsde("linear", steps=7)):
        assert build(describe(value), MRSchedule) == value  # type: ignore[type-abstract]
    network = build(describe(tiny_unet()), nn.Module)
    assert isinstance(network, UNet)
    assert network.widths == (8, 16)


def test_only_allowed_packages_are_built() -> None:
    spec = {"class_path": "torch.nn.Identity", "init_args": {}}
    with pytest.raises(CheckpointError, match=r"torch\.nn\.Identity is outside the allowed"):
        build(spec, nn.Module)
    assert isinstance(build(spec, nn.Module, allow=["torch"]), nn.Identity)
    with pytest.raises(CheckpointError, match="not a Module"):
        build({"class_path": "mrdiff.checkpoints.reading.load_model"}, nn.Module)
    with pytest.raises(CheckpointError, match="cannot be imported"):
        build({"class_path": "mrdiff.networks.Missing"}, nn.Module)
    with pytest.raises(CheckpointError, match="cannot be built"):
        build({"class_path": "mrdiff.networks.UNet", "init_args": {"depth": 3}}, nn.Module)


def test_what_an_allowed_module_imports_is_not_allowed() -> None:
    for class_path in ("mrdiff.checkpoints.reading.Path", "mrdiff.training.optim.Optimizer"):
        with pytest.raises(CheckpointError, match="outside the allowed"):
            build({"class_path": class_path}, object)


def test_a_public_name_is_not_that_of_another_class(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("mine")
    package.Rain = type("Rain", (), {"__module__": "mine.rain"})  # type: ignore[attr-defined]
    package.__all__ = ["Rain"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", package)
    assert public_path(package.Rain) == "mine.Rain"
    assert public_path(type("Rain", (), {"__module__": "mine.heavy"})) == "mine.heavy.Rain"


class Halved(LinearTheta):
    """A schedule of the user's own."""


def test_a_schedule_of_ones_own_is_built_where_it_is_allowed(tmp_path: Path) -> None:
    process = MRProcess(Halved(0.01))
    _, path = trained(tmp_path, steps=2, process=process)
    with pytest.raises(CheckpointError, match="allow 'tests'"):
        load_model(path, "cpu")
    assert load_model(path, "cpu", allow=["tests"]).process == process
    init_from(MRDiffusion(tiny_unet(), process).denoiser, path)
    with pytest.raises(CheckpointError, match="tests"):
        init_from(MRDiffusion(tiny_unet()).denoiser, path)


def test_a_network_that_cannot_be_saved_fails_before_training(tmp_path: Path) -> None:
    class Forgetful(UNet):
        def __init__(self, breadth: int) -> None:
            super().__init__(widths=(breadth, breadth), encoder=(1,), decoder=(1,))

    with pytest.raises(TypeError, match="keep the constructor argument 'breadth'"):
        trained(tmp_path, steps=1_000_000_000_000, network=Forgetful(8))


class Kind(enum.StrEnum):
    FINE = "fine"


class Keeper(nn.Module):
    """A network that keeps whatever it is given."""

    def __init__(self, value: Any, rest: Any = None) -> None:
        super().__init__()
        self.value, self.rest = value, rest
        self.scale = nn.Parameter(torch.ones(1))


PLAIN = {
    "np.float64": (np.float64(0.5), 0.5),
    "np.float32": (np.float32(0.5), 0.5),
    "np.int64": (np.int64(3), 3),
    "np.bool": (np.bool_(True), True),
    "np.str": (np.str_("a"), "a"),
    "np.array": (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
    "tensor": (torch.tensor([1.0, 2.0]), [1.0, 2.0]),
    "path": (Path("a/b"), "a/b"),
    "enum": (Kind.FINE, "fine"),
    "nested": ({"a": (np.float64(1), {np.str_("b"): np.int8(2)})}, {"a": [1.0, {"b": 2}]}),
}


def types(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: (type(key), types(item)) for key, item in value.items()}
    return [types(item) for item in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize(("value", "expected"), PLAIN.values(), ids=PLAIN)
def test_what_is_described_is_plain_to_the_last_type(
    value: Any, expected: Any, tmp_path: Path
) -> None:
    found = describe(Keeper(value))["init_args"]["value"]
    assert found == expected
    assert types(found) == types(expected)
    torch.save(found, tmp_path / "plain.pt")
    assert torch.load(tmp_path / "plain.pt", weights_only=True) == expected
    assert yaml.safe_load(yaml.safe_dump(found)) == expected


@pytest.mark.parametrize("value", [object(), 1j, {1, 2}, b"a", len, enum.Enum("E", "A").A])  # type: ignore[attr-defined]
def test_what_cannot_be_written_fails_before_training(value: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot be written to a checkpoint"):
        trained(tmp_path, steps=1_000_000_000_000, network=Keeper(value))


def test_numbers_of_numpy_are_read_again_after_training(tmp_path: Path) -> None:
    process = MRProcess(LinearTheta(np.float64(0.01)), sigma_max=np.float64(0.2))
    module, path = trained(
        tmp_path, steps=2, process=process, data_std=np.float64(0.2), freeze=(np.str_("head.*"),)
    )
    loaded = load_model(path, "cpu")
    assert loaded.process == module.process
    assert type(loaded.data_std) is float


def test_a_process_is_built_by_its_class() -> None:
    process = MRProcess(LinearTheta(0.01), sigma_max=0.2)
    whole = describe(process)
    assert whole["class_path"] == "mrdiff.MRProcess"
    assert build_process(whole) == process
    with pytest.raises(CheckpointError, match="LinearTheta is not a GaussianPath"):
        build_process({**whole, "class_path": "mrdiff.LinearTheta"})
    with pytest.raises(CheckpointError, match="schedule cannot be of the type UNet"):
        build_process({**whole, "init_args": {"schedule": describe(tiny_unet())}})
    with pytest.raises(CheckpointError, match="outside the allowed"):
        build_process({**whole, "class_path": "os.path.Other"})


def test_objects_in_lists_and_mappings_are_built() -> None:
    schedules = [LinearTheta(0.01), LinearTheta(0.02)]
    network = Keeper(schedules, {"one": schedules[0], "more": [{"two": tiny_unet()}], "n": 3})
    built = build(describe(network), Keeper, allow=["tests"])
    assert built.value == schedules
    assert built.rest["one"] == schedules[0]
    assert isinstance(built.rest["more"][0]["two"], UNet)
    assert built.rest["n"] == 3
    hidden = {"class_path": "os.path.Other"}
    with pytest.raises(CheckpointError, match="outside the allowed"):
        build({**describe(network), "init_args": {"value": [hidden]}}, Keeper, allow=["tests"])
