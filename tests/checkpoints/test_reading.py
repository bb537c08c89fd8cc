"""A checkpoint by itself: what is read of it, and what is said of one that is damaged."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mrdiff import MRDiffusion, MRProcess, MRSampler, Restorer, TabulatedTheta, load_model
from mrdiff.checkpoints.description import CONFIG_KEY, CheckpointError
from mrdiff.checkpoints.export import export_model
from mrdiff.checkpoints.reading import open_checkpoint
from mrdiff.training import Consistency
from mrdiff.training.transfer import init_from
from tests.tiny_model import write_tiny_checkpoint
from tests.tiny_training import tiny_unet, trained

NAMES = ["data", "noise", "velocity"]


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_alone_is_enough(name: Any, tmp_path: Path) -> None:
    process = MRProcess(TabulatedTheta.irsde("cosine", steps=20), sigma_max=0.15)
    module, path = trained(tmp_path, steps=5, parameterization=name, process=process, data_std=0.2)
    torch.load(path, weights_only=True)
    loaded = load_model(path, "cpu")
    assert loaded.process == process
    assert loaded.parameterization.name == name
    assert not loaded.training
    mu = torch.rand(1, 3, 20, 24)
    noise = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    sampler = MRSampler(nfe=3)
    ours = sampler(module.denoiser.eval(), mu, noise=noise[0])
    assert torch.equal(sampler(loaded, mu, noise=noise[1]), ours)

    export_model(path, tmp_path / "exported")
    exported = load_model(tmp_path / "exported", "cpu")
    assert torch.equal(sampler(exported, mu, noise=torch.Generator().manual_seed(0)), ours)
    assert sorted(os.listdir(tmp_path / "exported")) == ["config.yaml", "model.safetensors"]
    with pytest.raises(CheckpointError, match="not an empty folder"):
        export_model(path, tmp_path / "exported")


def test_a_model_distilled_in_python_is_complete_as_well(tmp_path: Path) -> None:
    """It predicts what its objective made of what it was told to."""
    sampler = MRSampler(nfe=2, order=1, eta=math.inf, grid="uniform_angle(0.1)")
    objective = Consistency(intervals=(1, 2))
    module, path = trained(tmp_path, steps=4, objective=objective, sampler=sampler)
    assert module.config is None
    description = open_checkpoint(path).config
    assert description["model"]["parameterization"] == "boundary"
    assert description["sampler"]["eta"] == math.inf
    loaded = load_model(path, "cpu")
    mu = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(1))
    x = mu + 0.01
    assert float((loaded(x, torch.tensor(1e-6), mu).x0 - x).abs().max()) < 1e-4
    ours = sampler(module.denoiser.eval(), mu, noise=torch.Generator().manual_seed(0))
    export_model(path, tmp_path / "exported")
    for source in (path, tmp_path / "exported"):
        restorer = Restorer.from_checkpoint(source, device="cpu")
        assert restorer.sampler.options() == sampler.options()
        noise = torch.Generator().manual_seed(0)
        assert torch.equal(restorer.sampler(restorer.denoiser, mu, noise=noise), ours)
    plain = MRDiffusion(tiny_unet())
    with pytest.raises(CheckpointError, match=r"model\.parameterization .* has boundary"):
        init_from(plain.denoiser, path)
    with pytest.raises(CheckpointError, match=r"model\.parameterization .* has boundary"):
        plain.on_load_checkpoint(torch.load(path, weights_only=True))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_unreadable_checkpoints_are_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"broken\.ckpt is not a readable") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_foreign_missing_and_future_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_model(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match=r"no config\.yaml"):
        load_model(tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match="not written by mrdiff"):
        load_model(tmp_path / "foreign.ckpt")
    torch.save({"state_dict": {}, CONFIG_KEY: {"format": 99}}, tmp_path / "future.ckpt")
    with pytest.raises(CheckpointError, match="format 99"):
        load_model(tmp_path / "future.ckpt")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "config.yaml").write_text(yaml.safe_dump({"other": 1}))
    (tmp_path / "export" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="not a readable exported model"):
        load_model(tmp_path / "export")


def test_pickled_objects_are_not_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "pwned"),))

    torch.save({"state_dict": {}, CONFIG_KEY: Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_model(tmp_path / "evil.ckpt")
    assert not (tmp_path / "pwned").exists()


def places(value: Any, *above: Any) -> list[tuple[Any, ...]]:
    """The paths of all keys in nested dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in items:
        found.append((*above, key))
        if isinstance(item, (dict, list)):
            found += places(item, *above, key)
    return found


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = write_tiny_checkpoint(tmp_path_factory.mktemp("sound") / "tiny.ckpt")
    content: dict[str, Any] = torch.load(path, weights_only=True)
    content["mrdiff"]["model"] |= {"lora": None, "freeze": []}
    return content


MISSING = object()
WRONG = [MISSING, None, "x", "", 0, -1.5, float("nan"), True, [], ["x"], {}, {"x": 1}, [[1]]]


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_damaged_checkpoint_is_one_line_that_names_the_file(
    sound: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = copy.deepcopy(sound)
    described = [place for place in places(content) if place[0] != "state_dict"]
    weights = [place for place in places(content) if place[0] == "state_dict"][:3]
    *above, key = data.draw(st.sampled_from([*described, *weights]))
    holder = functools.reduce(operator.getitem, above, content)
    value = data.draw(st.sampled_from(WRONG))
    if value is MISSING:
        del holder[key]
    else:
        holder[key] = value
    path = tmp_path_factory.mktemp("damaged") / "damaged.ckpt"
    torch.save(content, path)
    message = f"{path}: or loaded"
    try:
        load_model(path, "cpu")
    except CheckpointError as error:
        message = str(error)
    assert str(path) in message
    assert "\n" not in message
    module = MRDiffusion(tiny_unet())
    with contextlib.suppress(CheckpointError):
        module.on_load_checkpoint(content)


@pytest.mark.parametrize("found", [True, torch.ones(2), 2])
def test_another_format_is_named(sound: dict[str, Any], found: Any, tmp_path: Path) -> None:
    torch.save({**sound, "mrdiff": {**sound["mrdiff"], "format": found}}, tmp_path / "odd.ckpt")
    with pytest.raises(CheckpointError, match=r"odd\.ckpt: this is checkpoint format"):
        load_model(tmp_path / "odd.ckpt", "cpu")


@pytest.mark.parametrize("weight", [lambda w: w.to_sparse(), lambda w: w.to("meta"), str])
def test_weights_of_a_wrong_kind_are_one_line(
    sound: dict[str, Any], weight: Callable[[Tensor], Any], tmp_path: Path
) -> None:
    state = {name: weight(value) for name, value in sound["state_dict"].items()}
    torch.save({**sound, "state_dict": state}, tmp_path / "odd.ckpt")
    with pytest.raises(CheckpointError, match=r"odd\.ckpt: its weight .* is no dense tensor"):
        load_model(tmp_path / "odd.ckpt", "cpu")


@pytest.mark.parametrize("text", ["x", "mrdiff: 3", "[1]", "mrdiff: {format: 1}", "\x80", "{"])
def test_damaged_exports_are_one_line(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    export_model(write_tiny_checkpoint(tmp_path / "tiny.ckpt"), folder)
    (folder / "config.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match="export") as caught:
        load_model(folder, "cpu")
    assert "\n" not in str(caught.value)


def test_an_opened_checkpoint_is_not_read_again(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path / "tiny.ckpt")
    opened = open_checkpoint(path)
    expected = load_model(path, "cpu")
    path.unlink()
    assert open_checkpoint(opened) is opened
    found = load_model(opened, "cpu")
    assert found.process == expected.process
    for a, b in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.equal(a, b)
