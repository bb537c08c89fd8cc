"""mrdiff convert: official files of every wrapping become checkpoints that restore the same."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from mrdiff import MRProcess, MRSampler, Prediction, TabulatedTheta, load_model
from mrdiff.checkpoints.reading import read_checkpoint
from mrdiff.cli.main import main
from mrdiff.cli.sample import command as sample
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import NOISE
from mrdiff.official.architecture import NETWORKS
from mrdiff.official.mars import MarsSampler
from mrdiff.system.names import ARCHITECTURES
from tests.networks.test_official import features, images, small
from tests.places import ROOT
from tests.tiny_model import write_pairs

Weights = dict[str, Tensor]

YML = """\
#### general settings
name: ir-sde
suffix: ~  # add suffix to saved images
gpu_ids: [0]

sde:
  max_sigma: 10
  T: 100
  schedule: cosine # linear, cosine
  eps: 0.005

#### network structures
network_G:
  which_model_G: ConditionalUNet
  setting:
    in_nc: 3
    out_nc: 3
    nf: 8
    depth: 4

#### path
path:
  pretrain_model_G: ~
train:
  lr_G: !!float 1e-4
"""
FLAGS = ("--max_sigma", "50", "--steps", "100", "--schedule", "cosine", "--eps", "0.005")
WRAPPINGS = {
    "plain": lambda w: w,
    "module": lambda w: {f"module.{k}": v for k, v in w.items()},
    "ema": lambda w: {
        **{f"online_model.module.{k}": torch.zeros_like(v) for k, v in w.items()},
        **{f"ema_model.module.{k}": v for k, v in w.items()},
        "initted": torch.tensor([True]),
        "step": torch.tensor([7]),
    },
    "nested": lambda w: {"params": {k: 0 * v for k, v in w.items()}, "params_ema": w},
    "state_dict": lambda w: {"state_dict": w, "epoch": 3},
}


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("ir-sde.yml").write_text(YML, encoding="utf-8")
    return tmp_path


def write(weights: Any, *, zipped: bool = True) -> None:
    torch.save(weights, "official.pth", _use_new_zipfile_serialization=zipped)


def run(kind: str, *flags: str, file: str = "official.pth", out: str = "out") -> int:
    return main(["convert", file, out, "--as", kind, *(flags or FLAGS)])


def refused(capsys: Any, kind: str, *flags: str, status: int = 1, **places: str) -> str:
    """The one line with which the command refuses; nothing is written."""
    before = sorted(Path().iterdir())
    assert run(kind, *flags, **places) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("mrdiff convert: error: ")
    assert captured.err.count("\n") == 1
    assert sorted(Path().iterdir()) == before
    return str(captured.err)


def weights_of(kind: str) -> Weights:
    return dict(small(kind).state_dict())


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("wrapping", WRAPPINGS)
@torch.no_grad()
def test_a_converted_network_gives_the_same_bits(kind: str, wrapping: str) -> None:
    source = small(kind)
    write(WRAPPINGS[wrapping](dict(source.state_dict())))
    assert run(kind) == 0
    loaded = load_model("out", "cpu")
    assert type(loaded.network) is NETWORKS[kind]
    assert {*loaded.network.state_dict()} == {*source.state_dict()}
    assert all(v.dtype == torch.float32 for v in loaded.network.state_dict().values())
    assert loaded.process == MRProcess(TabulatedTheta.irsde("cosine"), sigma_max=50 / 255)
    assert loaded.parameterization is NOISE
    x, mu = images(24, 37, 2)
    context = features(2) if kind == "daclip" else None
    t = torch.tensor([0.03, 1.0])
    same_layout = source.to(memory_format=torch.channels_last)
    assert torch.equal(loaded.network(x, mu, t, context), same_layout(x, mu, t, context))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_network_is_recognised_from_the_weights(kind: str, capsys) -> None:
    write(WRAPPINGS["ema"](weights_of(kind)))
    assert main(["convert", "official.pth", "out", *FLAGS]) == 0
    assert capsys.readouterr().out.startswith(f"network    {NETWORKS[kind].__name__}(")
    loaded = load_model("out", "cpu").network
    assert type(loaded) is NETWORKS[kind]
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in weights_of(kind).items())
    assert read_checkpoint("out").config["origin"]["as"] == kind


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a.weight": torch.ones(1)}, "looks like none of IR-SDE's U-Net, Refusion's NAFNet"),
        ({"visual.transformer.resblocks.0.w": torch.ones(1)}, "looks like a CLIP"),
        ({"intro.weight": torch.ones(3)}, "the weight intro.weight is missing or of another kind"),
        ({"init_conv.weight": torch.ones(8, 6, 7, 7)}, "the weight final_conv.weight is missing"),
    ],
)
def test_what_is_not_recognised_is_one_line(capsys, content: Any, said: str) -> None:
    write(content)
    assert main(["convert", "official.pth", "out", *FLAGS]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


def test_files_of_old_versions_of_torch() -> None:
    write(WRAPPINGS["module"](weights_of("refusion")), zipped=False)
    assert run("refusion") == 0
    loaded = load_model("out", "cpu").network.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in weights_of("refusion").items())


def test_half_precision_becomes_single() -> None:
    write({k: v.half() for k, v in weights_of("irsde").items()})
    assert run("irsde") == 0
    loaded = load_model("out", "cpu").network.state_dict()
    assert all(torch.equal(loaded[k], v.half().float()) for k, v in weights_of("irsde").items())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("irsde", {"channels": 1, "width": 4, "depth": 2}),
        ("refusion", {"width": 4, "encoder": (2, 1), "middle": 3, "decoder": (1, 2)}),
        ("daclip", {"width": 16, "multipliers": (1, 2, 2, 2, 4), "context_width": 24}),
        ("daclip", {"width": 16, "multipliers": (1, 4), "text": False}),
        ("daclip", {"width": 8, "multipliers": (1, 3, 2), "image": False}),
        ("daclip", {"width": 8, "multipliers": (1, 2), "text": False, "image": False}),
        ("daclip", {"width": 32, "context_width": 24, "text": False, "half_size": True}),
        (
            "daclip",
            {"width": 8, "multipliers": (2, 4), "text": False, "image": False, "half_size": True},
        ),
    ],
)
def test_the_architecture_is_read_from_the_weights(kind: str, options: dict[str, Any]) -> None:
    source = NETWORKS[kind](**options)
    write(dict(source.state_dict()))
    assert run(kind, *FLAGS, "--steps", "20") == 0
    loaded = load_model("out", "cpu").network
    for name, value in {**options, "steps": 20}.items():
        assert getattr(loaded, name) == value, name


def test_what_is_found_is_said(capsys) -> None:
    write(WRAPPINGS["ema"](weights_of("irsde")))
    assert run("irsde", "--yml", "ir-sde.yml", "--eps", "0.01", out="a/b") == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"network    IRSDEUNet\(channels=3, width=8, depth=4\), 2\.\d\d million parameters",
        lines[0],
    )
    assert lines[1:] == [
        "weights    those of ema_model, without the prefix 'module.'",
        "path       mr (the default)",
        "max_sigma  0.0392157, 10 grey levels of 255 (ir-sde.yml)",
        "steps      100 (ir-sde.yml)",
        "schedule   cosine (ir-sde.yml)",
        "eps        0.01 (--eps)",
        "converted official.pth -> a/b",
        "python sample.py --checkpoint a/b --input photo.png --output out",
    ]
    assert load_model("a/b", "cpu").process == MRProcess(
        TabulatedTheta.irsde("cosine", steps=100, eps=0.01), sigma_max=10 / 255
    )
    digest = hashlib.sha256(Path("official.pth").read_bytes()).hexdigest()
    origin = {"file": "official.pth", "as": "irsde", "sha256": digest}
    assert read_checkpoint("a/b").config["origin"] == origin


def test_what_daclip_needs_is_said(capsys) -> None:
    write(weights_of("daclip"))
    assert run("daclip") == 0
    printed = capsys.readouterr().out
    assert "weights    a plain state dict" in printed
    assert "context_width=512, text=True, image=True" in printed
    assert "--output out --daclip FILE\n" in printed
    assert "--context FILE" in printed


def test_other_channels_than_three_are_said(capsys) -> None:
    write(dict(NETWORKS["refusion"](channels=8, width=4, encoder=(1,), decoder=(1,)).state_dict()))
    assert run("refusion") == 0
    assert "for 8 channels use mrdiff.load_model" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "sigma_max"), [("10", 10 / 255), ("1.5", 1.5 / 255), ("1", 1 / 255), ("0.2", 0.2)]
)
def test_max_sigma_is_in_grey_levels_from_one_on(said: str, sigma_max: float) -> None:
    write(weights_of("irsde"))
    flags = ("--steps", "7", "--schedule", "linear", "--eps", "1e-3")
    assert run("irsde", "--max_sigma", said, *flags) == 0
    Path("other.yml").write_text(f"sde: {{max_sigma: {said}, T: 7, schedule: linear, eps: 1e-3}}")
    assert run("irsde", "--yml", "other.yml", out="from_yml") == 0
    expected = MRProcess(TabulatedTheta.irsde("linear", steps=7, eps=1e-3), sigma_max)
    assert load_model("out", "cpu").process == load_model("from_yml", "cpu").process == expected


# What is refused.


def test_nothing_is_guessed(capsys) -> None:
    write(weights_of("irsde"))
    error = refused(capsys, "irsde", "--max_sigma", "10", "--steps", "100", status=2)
    assert "give --schedule --eps (or the official file as --yml)" in error
    Path("ir-sde.yml").write_text("sde:\n  max_sigma: 75\n  T: 100\n")
    error = refused(capsys, "irsde", "--yml", "ir-sde.yml", status=2)
    assert "give --schedule --eps (ir-sde.yml does not say it)" in error


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--max_sigma", "0"), "--max_sigma: must be above 0"),
        (("--max_sigma", "nan"), "--max_sigma: must be above 0"),
        (("--steps", "0"), "--steps: must be at least 1"),
        (("--schedule", "cosin"), "unknown schedule cosin (did you mean cosine?)"),
        (("--eps", "1"), "--eps: must lie between 0 and 1, got 1"),
    ],
)
def test_wrong_flags(capsys, flags: tuple[str, ...], said: str) -> None:
    write({})
    assert said in refused(capsys, "irsde", *FLAGS, *flags, status=2)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("eps: 0.005", "eps: 2", "sde.eps: must lie between 0 and 1, got 2"),
        ("T: 100", "T: many", "sde.T: must be at least 1, a whole number, got many"),
        ("schedule: cosine", "schedule: sine", "sde.schedule: unknown schedule sine"),
        (YML, "- 1", "ir-sde.yml is not a YAML file of the official code"),
        (YML, "sde: 3", "ir-sde.yml: sde is not a section, but 3"),
        (YML, "a: [", "ir-sde.yml is not a YAML file: "),
        (YML, "a: !!python/object:os.system {}", "ir-sde.yml is not a YAML file: "),
        ("nf: 8", "nf: 64", "network_G.setting.nf is 64, but the weights have 8"),
        ("depth: 4", "ch_mult: [1, 2]", "ch_mult is [1, 2], but the weights have none"),
        ("depth: 4", "scale: 0.5", "setting.scale is 0.5, but the weights have 1"),
    ],
)
def test_wrong_yml(capsys, old: str, new: str, said: str) -> None:
    write(weights_of("irsde"))
    Path("ir-sde.yml").write_text(YML.replace(old, new), encoding="utf-8")
    assert said in refused(capsys, "irsde", "--yml", "ir-sde.yml")


def test_the_yml_of_the_other_networks() -> None:
    setting: dict[str, Any] = {
        "refusion": {
            "width": 8,
            "enc_blk_nums": [1, 1, 1, 3],
            "middle_blk_num": 1,
            "dec_blk_nums": [1, 1, 1, 1],
        },
        "daclip": {
            "in_nc": 3,
            "nf": 16,
            "ch_mult": [1, 2, 2, 4],
            "context_dim": 512,
            "use_degra_context": True,
            "use_image_context": True,
            "upscale": 1,
        },
        "wild-ir": {
            "in_nc": 3,
            "nf": 32,
            "ch_mult": [1, 2, 2],
            "context_dim": 512,
            "use_degra_context": False,
            "use_image_context": True,
            "scale": 0.5,
        },
    }
    for name, given in setting.items():
        write(weights_of(name))
        content = {**yaml.safe_load(YML), "network_G": {"setting": given}}
        Path("ir-sde.yml").write_text(yaml.safe_dump(content))
        assert main(["convert", "official.pth", name, "--yml", "ir-sde.yml"]) == 0


def test_paths(capsys, work: Path) -> None:
    assert "checkpoint official.pth: no such file" in refused(capsys, "irsde", status=2)
    write({})
    error = refused(capsys, "irsde", "--yml", "none.yml", status=2)
    assert "--yml none.yml: no such file" in error
    for taken in ("ir-sde.yml", "."):
        error = refused(capsys, "irsde", status=2, out=taken)
        assert f"{taken} exists and is not an empty folder" in error
    assert "unknown kind ir-sde (did you mean irsde?)" in refused(capsys, "ir-sde", status=2)
    (work / "out").mkdir()
    write(weights_of("irsde"))
    assert run("irsde") == 0


def test_a_training_state(capsys) -> None:
    schedulers = [{"milestones": Counter([3])}]
    write({"epoch": 1, "iter": 5, "schedulers": schedulers, "optimizers": [{"state": {}}]})
    error = refused(capsys, "irsde")
    assert "is a training state" in error
    assert "models/…_G.pth or …_EMA.pth" in error


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (nn.Linear(1, 1), r"object of the class torch\.nn\.modules\.linear\.Linear"),
        (torch.ones(3), "no weights by name, but a Tensor"),
        ({}, "no weights by name, but a dict"),
        ({"a": torch.ones(1), "b": 3}, "'b' is a int, not a tensor"),
        ({"a.weight": torch.ones(1)}, "looks like none of .* first key is a.weight"),
        ({"visual.transformer.resblocks.0.w": torch.ones(1)}, "looks like a CLIP"),
    ],
)
def test_files_of_something_else(capsys, content: Any, said: str) -> None:
    write(content)
    assert re.search(said, refused(capsys, "daclip"))


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 cut off"])
def test_files_that_torch_did_not_write(capsys, content: bytes) -> None:
    Path("official.pth").write_bytes(content)
    assert "damaged, or torch.save did not write it" in refused(capsys, "irsde")


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("given", ARCHITECTURES)
def test_given_as_something_else(capsys, kind: str, given: str) -> None:
    if kind != given:
        write(weights_of(kind))
        error = refused(capsys, given)
        assert f"was given as {given}, but looks like" in error
        assert f"give --as {kind}" in error


def test_a_network_that_sees_x_alone(capsys) -> None:
    for kind, first in (("irsde", "init_conv"), ("refusion", "intro")):
        weights = weights_of(kind)
        weights[f"{first}.weight"] = weights[f"{first}.weight"][:, :3].clone()
        write(weights)
        error = refused(capsys, kind)
        assert f"sees the state x alone ({first}.weight has 3 input channels)" in error


def test_softmax_attention_in_the_middle(capsys) -> None:
    weights = weights_of("irsde")
    del weights["mid_attn.fn.fn.to_out.1.g"]
    for end in ("weight", "bias"):
        weights[f"mid_attn.fn.fn.to_out.{end}"] = weights.pop(f"mid_attn.fn.fn.to_out.0.{end}")
    write(weights)
    assert "full softmax attention in the middle" in refused(capsys, "irsde")


def test_keys_that_are_missing_or_not_known(capsys) -> None:
    weights = weights_of("refusion")
    del weights["time_mlp.1.weight"], weights["encoders.0.0.beta"]
    write({**weights, "cam_mlp.0.weight": torch.ones(1)})
    error = refused(capsys, "refusion")
    assert "2 missing (first time_mlp.1.weight), 1 not known (first cam_mlp.0.weight)" in error
    weights = weights_of("daclip")
    del weights["downs.1.3.weight"]
    write(weights)
    assert "weight downs.1.3.weight is missing" in refused(capsys, "daclip")


def test_weights_of_another_shape(capsys) -> None:
    write({**weights_of("irsde"), "final_conv.bias": torch.ones(4)})
    error = refused(capsys, "irsde")
    assert "1 of another shape (first final_conv.bias): (4,), not (3,)" in error


def test_a_network_that_cannot_be(capsys) -> None:
    write({"init_conv.weight": torch.ones(3, 6, 7, 7), "final_conv.weight": torch.ones(3, 3, 3, 3)})
    assert "there is no IRSDEUNet(channels=3, width=3, depth=0)" in refused(capsys, "irsde")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(capsys, value: float) -> None:
    weights = weights_of("irsde")
    weights["mid_block1.mlp.1.bias"][3] = value
    write(weights)
    error = refused(capsys, "irsde")
    assert "the weight mid_block1.mlp.1.bias is not of finite numbers" in error


# What can be done with it.


@pytest.mark.parametrize("kind", ["irsde", "refusion"])
def test_it_restores_a_photo(kind: str, capsys) -> None:
    write(weights_of(kind))
    assert run(kind) == 0
    write_pairs(Path(), ["photo.png"])
    given = ["--checkpoint", "out", "--input", "lq/photo.png", "--output", "restored"]
    assert sample.main([*given, "--device", "cpu"], program="sample.py") == 0
    assert "restored 1" in capsys.readouterr().out
    assert Path("restored/photo.png").stat().st_size > 0


def converted() -> tuple[Denoiser, Any]:
    """A converted denoiser in double precision and its network bare, of the raw time."""
    source = small("irsde").double()
    write({k: v.float() for k, v in source.state_dict().items()})
    assert run("irsde") == 0

    def bare(x: Tensor, mu: Tensor, raw: float) -> Tensor:
        out: Tensor = source(x, mu, torch.full((len(x),), raw / 100, dtype=x.dtype))
        return out

    return load_model("out", "cpu").double(), bare


def with_first_theta(denoiser: Denoiser) -> Denoiser:
    """The same with the tables of the official sampler, which has theta[0]."""
    process = MRProcess(TabulatedTheta.irsde("cosine", keep_first=True), sigma_max=50 / 255)
    return Denoiser(denoiser.network, process, NOISE)


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("solver", ["ode", "sde"])
@pytest.mark.parametrize("form", ["noise", "data"])
@torch.no_grad()
def test_the_official_sampler_does_the_same_with_it(solver: Any, form: Any) -> None:
    denoiser, bare = converted()
    mu = images(24, 37, 1)[1].double()
    sampler = MarsSampler(
        nfe=10, solver=solver, parameterization=form, dtype=torch.float64, output_range=None
    )
    theirs = sampler.sample_raw(bare, mu, noise(), fit_target="noise", sigma_max=50 / 255)
    # In noise form it takes the network's output as it is, whatever the process; x0 needs its own.
    ours = sampler(denoiser if form == "noise" else with_first_theta(denoiser), mu, noise())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", ["noise", "data"])
@torch.no_grad()
def test_ours_at_order_1_is_the_official_one_but_for_the_last_step(form: Any) -> None:
    denoiser, _ = converted()
    first = with_first_theta(denoiser)
    mu = images(24, 37, 1)[1].double()
    theirs = MarsSampler(
        nfe=5, order=1, parameterization=form, dtype=torch.float64, output_range=None
    )
    grid = torch.tensor([p.time / 100 for p in theirs.grid(50 / 255)], dtype=torch.float64)
    ours = MRSampler(nfe=5, order=1, grid=grid, prediction=form)
    paths: list[list[tuple[Tensor, Prediction]]] = [[], []]
    ends = [
        sampler(first, mu, noise(), lambda step, t, x, p, path=path: path.append((x.clone(), p)))
        for sampler, path in zip((ours, theirs), paths, strict=True)
    ]
    for (state, _), (official, _) in zip(*paths, strict=True):
        torch.testing.assert_close(state, official, rtol=0, atol=1e-9)
    # Ours ends with the prediction, the official one with the noise left by theta[0] on top.
    x0, eps = paths[1][-1][1]
    zero = torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(ends[0], x0, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        ends[1], first.process.marginal(x0, mu, zero, eps), rtol=0, atol=1e-9
    )
    # Without theta[0], as converted, it stays close: the tables differ by less than a percent.
    change = (ends[1] - mu).abs().mean()
    assert (ours(denoiser, mu, noise()) - ends[1]).abs().mean() < 0.005 * change


def test_help_answers_without_torch_and_as_a_module() -> None:
    script = "import sys; from mrdiff.cli.main import main\ntry: main(['convert', '--help'])\n"
    script += "except SystemExit: pass\nassert 'torch' not in sys.modules"
    outputs = [
        subprocess.check_output([sys.executable, *way], text=True, cwd=ROOT)
        for way in (["-c", script], ["-m", "mrdiff", "convert", "--help"])
    ]
    assert outputs[0].startswith("usage: mrdiff convert")
    assert outputs[0] == outputs[1]
