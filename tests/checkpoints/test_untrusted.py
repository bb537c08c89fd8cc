"""Checkpoints of somebody who means harm: one line that names the file, soon, in little memory."""

from __future__ import annotations

import copy
import json
import os
import re
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mrdiff import Restorer
from mrdiff.acceleration.ranges import read_ranges
from mrdiff.checkpoints.bounds import bounded_by
from mrdiff.checkpoints.description import CheckpointError, build
from mrdiff.checkpoints.export import export_model
from mrdiff.checkpoints.reading import read_checkpoint
from mrdiff.cli.train.start import Start, architecture
from mrdiff.networks import UNet
from tests.tiny_model import write_tiny_checkpoint

Edit = Callable[[dict[str, Any], dict[str, Any]], Any]  # of the description and the whole content
HEAD = "denoiser.network.head.weight"


def network(kind: str = "UNet", **arguments: Any) -> Edit:
    """Another network, or other arguments of the one there is."""

    def edit(description: dict[str, Any], _: Any) -> None:
        spec = description["model"]["network"]
        if kind != "UNet":
            spec |= {"class_path": f"mrdiff.networks.{kind}", "init_args": {}}
        spec["init_args"] |= arguments

    return edit


def model(**values: Any) -> Edit:
    return lambda description, _: description["model"].update(values)


def process(**values: Any) -> Edit:
    return lambda description, _: description["model"]["process"]["init_args"].update(values)


def setting(**values: Any) -> Edit:
    return lambda description, _: description.update(values)


def weight(change: Callable[[torch.Tensor], Any]) -> Edit:
    def edit(_: Any, content: dict[str, Any]) -> None:
        content["state_dict"][HEAD] = change(content["state_dict"][HEAD])

    return edit


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def doubled(times: int) -> list[Any]:
    """Few lists that are 2^times when they are followed."""
    value: list[Any] = [0]
    for _ in range(times):
        value = [value, value]
    return value


TABLE = {"class_path": "mrdiff.TabulatedTheta", "init_args": {"cumulative": [0, float("nan"), 1]}}
HUGE = 10**9
HOSTILE: dict[str, Edit] = {
    "nested deeply": setting(data=deep(100)),
    "doubled lists": setting(data=doubled(60)),
    "long text": setting(data="x" * 100_000),
    "large number": setting(data=10**300),
    "blocks": network(middle=60_000),
    "more blocks": network(encoder=[HUGE]),
    "widths": network(widths=[30_000, 30_000]),
    "larger widths": network(widths=[HUGE, HUGE]),
    "patch": network(patch=HUGE),
    "no patch": network(patch=0),
    "negative": network(widths=[-4, 8]),
    "tasks": network(tasks=[str(i) for i in range(20_000)]),
    "gain that is text": network(input_gain="x"),
    "gain that is none": network(input_gain=float("nan")),
    "task that is a number": network(tasks=[1, 2]),
    "mask that is text": network(mask="x"),
    "depth": network("IRSDEUNet", depth=HUGE),
    "width": network("IRSDEUNet", width=10**12),
    "levels": network("RefusionNAFNet", encoder=[0] * 20_000, decoder=[0] * 20_000),
    "multipliers": network("DACLIPUNet", multipliers=[1] * 20_000),
    "context": network("DACLIPUNet", context_width=10**10),
    "class in a list": network(tasks=[{"class_path": "os.system", "init_args": {}}]),
    "class that is a number": network(tasks=[{"class_path": 3}]),
    "network that is text": model(network="evil.Net"),
    "network with a key": lambda d, _: d["model"]["network"].update(evil=1),
    "schedule that is text": process(schedule="evil.Schedule"),
    "bare schedule that is text": model(process={"schedule": "evil.Schedule", "sigma_max": 0.2}),
    "schedule that is none": process(schedule=TABLE),
    "sigma_max": process(sigma_max=float("inf")),
    "large sigma_max": process(sigma_max=1e300),
    "data_std": model(data_std=float("nan")),
    "large data_std": model(data_std=1e300),
    "parameterization": model(parameterization="evil.Class"),
    "parameterizations": model(parameterization=["data"]),
    "lora that is a class": model(lora={"class_path": "evil.Net"}),
    "lora without adapters": model(lora={"rank": HUGE, "alpha": 1, "targets": None}),
    "freeze": model(freeze="head.*"),
    "calls": setting(sampler={"nfe": HUGE}),
    "calls that are true": setting(sampler={"nfe": True}),
    "times that are text": setting(sampler={"nfe": 2, "grid": ["a", "b", "c"]}),
    "too few times": setting(sampler={"nfe": 2, "grid": [1, 0]}),
    "times of another file": setting(sampler={"nfe": 2, "grid": "other.yaml"}),
    "order": setting(sampler={"nfe": 2, "order": [2]}),
    "endless order": setting(sampler={"nfe": 2, "order": float("inf")}),
    "endless noise": setting(sampler={"nfe": 2, "temperature": float("inf")}),
    "endless times": setting(sampler={"nfe": 2, "grid": {2: [1, float("inf"), 0]}}),
    "eta that is text": setting(sampler={"nfe": 2, "eta": "inf"}),
    "eta that is none": setting(sampler={"nfe": 2, "eta": float("nan")}),
    "eta below all": setting(sampler={"nfe": 2, "eta": -float("inf")}),
    "eta of another clock": setting(
        sampler={"nfe": 2, "eta": float("inf"), "prediction": "noise"},
    ),
    "corrector": setting(sampler={"nfe": 2, "corrector": "x"}),
    "class in a sampler": setting(sampler={"nfe": 2, "grid": {"class_path": "os.system"}}),
    "ranges that are text": setting(int8={"head": "12"}),
    "ranges that are none": setting(int8={"head": [float("nan"), 1.0]}),
    "whole numbers": weight(lambda w: w.long()),
    "complex numbers": weight(lambda w: w.to(torch.complex64)),
    "numbers of 8 bits": weight(lambda w: w.to(torch.float8_e4m3fn)),
    "not finite": weight(lambda w: w / 0),
    "not a number": weight(lambda w: w * float("nan")),
    "one number as many": weight(lambda w: torch.ones(1).expand(w.shape)),
    "one number as very many": weight(lambda w: torch.ones(1).expand(10**6, 10**6, 3, 3)),
    "a quantized weight": weight(lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8)),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = write_tiny_checkpoint(tmp_path_factory.mktemp("sound") / "tiny.ckpt")
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def use(path: Path) -> None:
    checkpoint = read_checkpoint(path)
    Restorer.from_checkpoint(checkpoint, device="cpu")
    if "int8" in checkpoint.config:
        read_ranges(checkpoint)


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        use(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:torch.quantize", "ignore:TypedStorage")
@pytest.mark.parametrize("edit", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_checkpoint_is_refused(sound: Any, edit: Edit, tmp_path: Path) -> None:
    content = copy.deepcopy(sound)
    edit(content["mrdiff"], content)
    torch.save(content, tmp_path / "hostile.ckpt")
    refused(tmp_path / "hostile.ckpt")


def test_what_is_built_is_bounded_by_the_weights(sound: Any) -> None:
    spec = sound["mrdiff"]["model"]["network"]
    with bounded_by(sound["state_dict"]):
        build(spec, UNet)
        for part, size in (("middle", 60_000), ("widths", (30_000, 4))):
            large = {**spec, "init_args": {**spec["init_args"], part: size}}
            with pytest.raises(CheckpointError, match="larger than its weights"):
                build(large, UNet)
    # Only within the context, and not of others' networks.
    assert UNet(widths=(256, 256), encoder=(1,), decoder=(1,)).widths == (256, 256)


def rewritten(source: Path, target: Path, *, kind: int = 0, pickled: bytes | None = None) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", kind) as new:
        for record in old.infolist():
            content = old.read(record)
            if pickled is not None and record.filename.endswith("data.pkl"):
                content = b"\x80\x02" + pickled + b"."
            new.writestr(record.filename, content)
    return target


def test_records_that_torch_does_not_write_are_refused(tmp_path: Path) -> None:
    source = write_tiny_checkpoint(tmp_path / "tiny.ckpt")
    path = tmp_path / "other.ckpt"
    use(rewritten(source, path))
    rewritten(source, path, kind=zipfile.ZIP_DEFLATED)
    assert "is compressed" in refused(path)
    rewritten(source, path, pickled=b"]" * (9 << 20))
    assert "larger than a description" in refused(path)
    text = b"X" + struct.pack("<I", 1000) + b"a" * 1000
    rewritten(source, path, pickled=b"c_codecs\nencode\n" + text + b"\x85R")
    assert "bytes objects" in refused(path)
    rewritten(source, path, pickled=b"ctorch\nTensor\nJ\xff\xff\xff\x7f\x85R")
    assert "is not a readable checkpoint" in refused(path)
    with (
        zipfile.ZipFile(rewritten(source, path), "a") as archive,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        archive.writestr("tiny/data.pkl", b"other")
    assert "one name" in refused(path)
    # The directory says of two records that they lie in one place.
    content = bytearray(rewritten(source, path).read_bytes())
    first = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x01\x02", first + 4)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    path.write_bytes(content)
    assert "overlaps" in refused(path)
    path.write_bytes(source.read_bytes()[:5000])
    refused(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ckpt")
    assert "is a pipe or a device" in refused(tmp_path / "pipe.ckpt")
    (tmp_path / "zero.ckpt").symlink_to("/dev/zero")
    assert "is a pipe or a device" in refused(tmp_path / "zero.ckpt")
    export_model(write_tiny_checkpoint(tmp_path / "tiny.ckpt"), tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "model" / "model.safetensors")
    assert "no model.safetensors" in refused(tmp_path / "model")


def test_a_hostile_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    export_model(write_tiny_checkpoint(tmp_path / "tiny.ckpt"), folder)
    use(folder)
    config = folder / "config.yaml"
    sound = config.read_text()
    large = sound + "\nx: " + "y" * (5 << 20)
    for text in (
        "[" * 20_000,
        "- " * 20_000,
        "{a: " * 20_000,
        large,
        "mrdiff: !!bool x",
        "&a [*a]",
    ):
        config.write_text(text)
        refused(folder)
    lines = ["a0: &a0 [x, x, x, x]"]
    lines += [f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}, *a{i}, *a{i}]" for i in range(40)]
    config.write_text("\n".join(lines))
    assert "holds too much" in refused(folder)
    content = yaml.safe_load(sound)
    content["mrdiff"]["model"]["network"]["init_args"]["middle"] = 60_000
    config.write_text(yaml.safe_dump(content))
    assert "larger than its weights" in refused(folder)


def test_a_description_in_json_is_held_to_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    export_model(write_tiny_checkpoint(tmp_path / "tiny.ckpt"), folder)
    content = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").unlink()
    config, sound = folder / "config.json", json.dumps(content)
    config.write_text(sound)
    use(folder)
    for text, reason in {
        "[" * 2_000_000: "nested too deeply",
        json.dumps({**content, "mrdiff": {**content["mrdiff"], "data": deep(100)}}): "too deeply",
        json.dumps({**content, "x": "y" * (5 << 20)}): "larger than 4 MiB",
        sound[:-1] + ', "mrdiff": {}}': "stands twice",
        "{" + ", ".join(f'"{i % 200_000}": 1' for i in range(200_001)) + "}": "stands twice",
        '{"mrdiff": ' + "9" * 10_000 + "}": "digits",
        "[]": "not written by mrdiff",
        sound[:-9]: "not a readable exported model",
    }.items():
        config.write_text(text)
        assert reason in refused(folder)
    config.write_bytes(b"\xff\xfe" + sound.encode("utf-16-le"))
    refused(folder)
    content["mrdiff"]["model"]["network"]["init_args"]["middle"] = 60_000
    config.write_text(json.dumps(content))
    assert "larger than its weights" in refused(folder)
    # Of the two, YAML is the one that is read.
    (folder / "config.yaml").write_text(sound)
    use(folder)


START = Start(init_from="x", ckpt_path=None, packages=(), classes=frozenset(), has_data=True)
TRAINED: dict[str, Edit] = {
    "network": network(middle=60_000),
    "text of a class": network(tasks=["evilmod.Net", "b"]),
    "text of a description": network(tasks=["{class_path: evilmod.Net}", "b"]),
    "interpolation": network(tasks=["${oc.env:HOME}", "b"]),
    "network that is text": model(network='{"class_path": "evilmod.Net"}'),
    "lora": model(lora={"class_path": "evilmod.Net"}),
    "foreign network": lambda d, _: d["model"]["network"].update(class_path="evilmod.Net"),
}


@pytest.mark.parametrize("edit", TRAINED.values(), ids=TRAINED)
def test_training_takes_nothing_hostile_over(
    sound: Any, edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evilmod.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    content = copy.deepcopy(sound)
    edit(content["mrdiff"], content)
    torch.save(content, tmp_path / "hostile.ckpt")
    with pytest.raises(CheckpointError) as caught:
        architecture(START, read_checkpoint(tmp_path / "hostile.ckpt", merged=False))
    assert str(caught.value).count("hostile.ckpt") == 1
    assert not (tmp_path / "ran").exists()


def learnt(**arguments: Any) -> dict[str, Any]:
    """Data of which a run learns, with other arguments of its set."""
    spec = {"class_path": "datamodules.PairedFolder", "init_args": {"lq": "lq", "gt": "gt"}}
    return {"train": {**spec, "init_args": {**spec["init_args"], **arguments}}, "batch_size": 2}


DATA: dict[str, tuple[Any, str]] = {
    "class": ({"train": {"class_path": "evilmod.Net"}}, "class evilmod.Net is outside"),
    "function": ({"train": {"class_path": "os.system"}}, "class os.system is outside"),
    "class of another set": ({**learnt(), "val": {"class_path": "evilmod.Net"}}, "is outside"),
    "class deep within": (learnt(a=[{"b": {"class_path": "evilmod.Net"}}]), "is outside"),
    "what our packages import": (
        {"train": {"class_path": f"datamodules.loading.{'DataLoader'}"}},
        f"class datamodules.loading.{'DataLoader'} is outside",
    ),
    "text of a class": (learnt(degradation="evilmod.Net"), "'evilmod.Net' in its desc"),
    "text of a deeper class": (learnt(degradation="evilmod.a.b.Net"), "could import evilmod"),
    "key of a class": ({**learnt(), "evilmod.Net": 1}, "could import evilmod"),
    "text of a description": (learnt(a="{class_path: evilmod.Net}"), "could be read as a config"),
    "interpolation": (learnt(lq="${oc.env:HOME}"), "there is a '${oc.env:HOME}'"),
    "interpolation of a part": ({**learnt(), "root": "a/${b}"}, r"there is a 'a/${b}'"),
    "text of all": ("{train: {class_path: evilmod.Net}}", "could be read as a config"),
    "file": (learnt(degradation="evil.txt"), "'evil.txt' in its description could be read"),
    "file at home": ({**learnt(), "degradation": "~/evil.txt"}, "could be read"),
    "file of all": ("evil.txt", "could be read"),
    "nothing": (None, "does not say what it was trained on: name data.train"),
    "nothing to learn from": ({"val": learnt()["train"]}, "does not say what it was trained on"),
    "a list": ([1], "does not say what it was trained on"),
}


def architecture_with(data: Any, sound: Any, folder: Path, **start: Any) -> str:
    content = copy.deepcopy(sound)
    content["mrdiff"]["data"] = data
    torch.save(content, folder / "data.ckpt")
    wanted = replace(START, **{"has_data": False, **start})
    return architecture(wanted, read_checkpoint(folder / "data.ckpt", merged=False))


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what must neither be imported nor read, which is at home, too."""
    (tmp_path / "evilmod.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "evil.txt").write_text("class_path: evilmod.Net")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("data", "reason"), DATA.values(), ids=DATA)
def test_nothing_hostile_is_learnt_from(sound: Any, data: Any, reason: str, evil: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape(reason)) as caught:
        architecture_with(data, sound, evil)
    assert str(caught.value).count("data.ckpt") == 1
    assert "\n" not in str(caught.value)
    # Whoever says what is learnt from does not look at it.
    assert "data" not in json.loads(architecture_with(data, sound, evil, has_data=True))
    assert not (evil / "ran").exists()


def test_what_is_sound_is_learnt_from(sound: Any, evil: Path) -> None:
    """Folders may be called anything, and a package that is allowed is imported."""
    for name in ("evilmod/v1.2", "evilmod.v2/lq", "os.old-2", "../evilmod", "evil", "None", ""):
        found = json.loads(architecture_with(learnt(lq=name), sound, evil))
        assert found["data"] == learnt(lq=name)
    mine = {"train": {"class_path": "kindmod.Pairs", "init_args": {"kind": "kindmod.Kind"}}}
    (evil / "kindmod.py").write_text("class Pairs: pass")
    with pytest.raises(CheckpointError, match="allow 'kindmod'"):
        architecture_with(mine, sound, evil)
    assert json.loads(architecture_with(mine, sound, evil, packages=("kindmod",)))["data"] == mine
    # A resumed run, or one that is evaluated, need not learn.
    resumed = {"init_from": None, "ckpt_path": "x"}
    assert "data" not in json.loads(architecture_with(None, sound, evil, **resumed))
