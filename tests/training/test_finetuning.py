"""Starting from old weights: what is taken over, freezing, low-rank adapters, what is saved."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch  # noqa: F401  (its log handler must hold the real stderr)
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from mrdiff import MRDiffusion, load_model
from mrdiff.checkpoints.adapters import merge, plain_state
from mrdiff.checkpoints.description import CheckpointError
from mrdiff.checkpoints.export import export_model
from mrdiff.checkpoints.reading import read_checkpoint
from mrdiff.cli.sample import command as sample
from mrdiff.cli.train import command as train
from mrdiff.networks import UNet
from mrdiff.training.freezing import freeze, match_names, tally, trainable
from mrdiff.training.lora import LoRA, add_adapters
from mrdiff.training.transfer import init_from, load_fitting
from tests.tiny_model import PAIRS_CONFIG, write_pairs, write_tiny_checkpoint
from tests.tiny_training import TinyNetwork

CONFIG = (
    PAIRS_CONFIG
    + """\
model:
  lr_scheduler:
    class_path: mrdiff.training.WarmupCosine
    init_args: {warmup: 1, total: 1000}
trainer:
  accelerator: cpu
  max_steps: 3
  max_epochs: -1
  default_root_dir: runs
  enable_progress_bar: false
  enable_model_summary: false
  num_sanity_val_steps: 0
  check_val_every_n_epoch: 1000
  callbacks:
    - class_path: callbacks.EMA
      init_args: {decay: 0.9}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {save_last: true, save_top_k: 0}
"""
)
LAST = Path("runs/lightning_logs/version_0/checkpoints/last.ckpt")

needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="needs peft: pip install 'mrdiff[lora]'"
)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pairs, a config that names no network, and old.ckpt; the working directory."""
    write_pairs(tmp_path / "data", [f"{i}.png" for i in range(2)])
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    write_tiny_checkpoint(tmp_path / "old.ckpt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    return tmp_path


def tiny(**options: Any) -> UNet:
    """The network of old.ckpt, with random weights everywhere."""
    sizes: dict[str, Any] = {"widths": (4, 8), "encoder": (1,), "middle": 1, "decoder": (1,)}
    return randomised(UNet(**{**sizes, "time_width": 8, **options}))


def randomised(network: Any) -> Any:
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network


def run(*arguments: str, start: str | None = "old.ckpt") -> int:
    first = [] if start is None else ["--init_from", start]
    return train.main(["--config", "tiny.yaml", *first, *arguments], program="train.py")


def read(path: Path | str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def network_of(path: Path | str) -> dict[str, Any]:
    arguments: dict[str, Any] = read_checkpoint(path).config["model"]["network"]["init_args"]
    return arguments


def weights_of(path: Path | str, part: str = "state_dict") -> dict[str, Tensor]:
    return {k.removeprefix("denoiser.network."): v for k, v in read(path)[part].items()}


def changed(before: Path | str, after: Path | str) -> set[str]:
    """The names of the network's tensors that a run has changed."""
    old, new = weights_of(before), weights_of(after, "current_model_state")
    return {name for name, value in old.items() if not torch.equal(value, new[name])}


def images() -> tuple[Tensor, Tensor, Tensor]:
    """State, degraded image, times."""
    generator = torch.Generator().manual_seed(1)
    x, mu = torch.rand(2, 2, 3, 20, 24, generator=generator)
    return x, mu, torch.rand(2, generator=generator)


# What is built


def test_the_checkpoint_gives_what_the_config_leaves_out(work: Path, capsys: Any) -> None:
    assert run() == 0
    assert "loaded all 34 tensors" in capsys.readouterr().err
    assert load_model(LAST, "cpu").process == load_model("old.ckpt", "cpu").process
    assert network_of(LAST)["widths"] == [4, 8]
    assert read(LAST)["global_step"] == 3
    # The run's own configuration is whole: it can be resumed with it, too.
    saved = LAST.parents[1] / "config.yaml"
    assert yaml.safe_load(saved.read_text())["model"]["network"]["init_args"]["widths"] == [4, 8]
    more = ["--ckpt_path", "last", "--trainer.max_steps", "4"]
    assert train.main(["--config", str(saved), *more]) == 0
    assert run(*more[:2], "--trainer.max_steps", "5", start=None) == 0
    assert read(LAST)["global_step"] == 5
    assert train.main(["validate", "--config", str(saved), "--ckpt_path", str(LAST)]) == 0


def test_an_exported_folder_and_last_are_starts_as_well(work: Path, capsys: Any) -> None:
    export_model("old.ckpt", "exported")
    assert run(start="exported") == 0
    assert run(start="last") == 0
    errors = capsys.readouterr().err
    assert f"init_from: {LAST}" in errors
    assert errors.count("loaded all") == 2


def test_what_the_user_says_wins(work: Path, capsys: Any) -> None:
    (work / "more.yaml").write_text("model: {network: {init_args: {time_width: 16}}}\n")
    assert run("--config", "more.yaml", "--model.network.init_args.middle", "2") == 0
    assert network_of(LAST)["time_width"] == 16
    assert network_of(LAST)["middle"] == 2
    assert network_of(LAST)["widths"] == [4, 8]
    report = capsys.readouterr().err
    assert " tensors, " in report
    assert "% of the parameters" in report
    assert "another shape, as initialised: " in report
    assert "not in the checkpoint, as initialised: 6 (middle_stage.blocks.1.first.weight" in report


def test_no_network_at_all_is_one_line(work: Path, capsys: Any) -> None:
    assert run(start=None) == 2
    assert "no model.network: name one in a config, or start" in capsys.readouterr().err


def test_another_meaning_is_refused_unless_allowed(work: Path, capsys: Any) -> None:
    wrong = {"process.sigma_max": "0.4", "parameterization": "noise", "data_std": "1.0"}
    for key, value in wrong.items():
        assert run(f"--model.{key}", value) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert f"model.{key.partition('.')[0]} of this run differs from old.ckpt" in line
        assert line.endswith("--init_mismatch true")
    other = ["--model.process.sigma_max", "0.4", "--model.parameterization", "noise"]
    assert run(*other, "--init_mismatch", "true") == 0
    assert load_model(LAST, "cpu").process.sigma_max == 0.4


PLAIN = """
from torch import nn

class Plain(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.width = width
        self.only = nn.Conv2d(6, 3, 1)

    def forward(self, x, mu, t, context=None):
        return self.only(__import__("torch").cat([x, mu], dim=1))
"""


def test_a_class_that_only_the_checkpoint_names_is_not_imported(work: Path, capsys: Any) -> None:
    (work / "plain_tiny.py").write_text(PLAIN)
    named = ["--model.network", "plain_tiny.Plain"]
    assert run(*named, "--model.network.width", "5", start=None) == 0
    sys.modules.pop("plain_tiny")
    capsys.readouterr()
    old = str(LAST)
    assert run(start=old) == 1
    assert "--allow_package plain_tiny" in capsys.readouterr().err.splitlines()[-1]
    assert "plain_tiny" not in sys.modules
    assert run("--allow_package", "plain_tiny", start=old) == 0
    assert run(*named, start=old) == 0
    assert network_of(LAST.parents[2] / "version_2/checkpoints/last.ckpt")["width"] == 5


# What is taken over


def test_nothing_fits(work: Path) -> None:
    module = MRDiffusion(TinyNetwork())
    with pytest.raises(CheckpointError, match=r"nothing in old\.ckpt fits"):
        init_from(module.denoiser, "old.ckpt")


@pytest.mark.parametrize("patch", [1, 2])
def test_a_wider_input_keeps_the_function(patch: int) -> None:
    old, new = tiny(patch=patch), tiny(patch=patch, mask=True)
    transfer = load_fitting(new, old.state_dict())
    assert [entry.split()[0] for entry in transfer.widened] == ["head.weight"]
    assert not transfer.new
    assert "widened" in transfer.report()[1]
    x, mu, t = images()
    torch.testing.assert_close(new(x, mu, t), old(x, mu, t))
    holes = {"mask": torch.zeros(2, 1, 20, 24)}
    torch.testing.assert_close(new(x, mu, t, holes), old(x, mu, t))


def test_the_report_is_short_and_the_share_is_right() -> None:
    old, new = tiny(widths=(4, 8, 8), encoder=(1, 1), decoder=(1, 1)), tiny()
    transfer = load_fitting(new, old.state_dict())
    assert 0 < transfer.share < 1
    taken = sum(new.state_dict()[name].numel() for name in transfer.loaded)
    assert transfer.share == taken / sum(value.numel() for value in new.state_dict().values())
    assert all(len(line) < 400 for line in transfer.report())
    for name in transfer.loaded:
        assert torch.equal(new.state_dict()[name], old.state_dict()[name])


# Freezing


def test_frozen_weights_stay_and_the_others_learn(work: Path, capsys: Any) -> None:
    assert run("--model.freeze", "[time.*, down_stages.0.*]") == 0
    frozen = {name for name in weights_of(LAST) if name.startswith(("time.", "down_stages.0."))}
    assert changed("old.ckpt", LAST) == set(weights_of(LAST)) - frozen
    for name in frozen:  # averaging is no change
        torch.testing.assert_close(weights_of(LAST)[name], weights_of("old.ckpt")[name])
    assert "training " in capsys.readouterr().err
    saved = sum(len(group["params"]) for group in read(LAST)["optimizer_states"][0]["param_groups"])
    assert saved == len(weights_of(LAST)) - len(frozen)
    # A resumed run goes on with what was frozen, and is refused with other settings.
    assert run("--ckpt_path", "last", "--trainer.max_steps", "5", start=None) == 0
    assert frozen.isdisjoint(changed("old.ckpt", LAST))
    assert run("--ckpt_path", "last", "--model.freeze", "[tail.*]", start=None) == 1
    assert "model.freeze of this run is ['tail.*']" in capsys.readouterr().err.splitlines()[-1]


def test_patterns_that_cannot_be_meant(work: Path, capsys: Any) -> None:
    assert run("--model.freeze", "[times.*]") == 2
    assert "nothing is named times.* (did you mean time.*" in capsys.readouterr().err
    assert run("--model.freeze", "['*']") == 2
    assert "leaves nothing to train" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"x: nothing is named B$"):
        match_names(["a", "B"], ["a", "b.c"], key="x")


def test_the_tally() -> None:
    network = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 12, bias=False))
    freeze(network, ["0.*"])
    assert tally(network) == "training 48 of 64 parameters (75.0%)"
    assert trainable(network) == list(network[1].parameters())


# Low-rank adapters


def test_without_peft_the_error_says_what_to_install(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    assert run("--model.lora.rank", "2") == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("pip install 'mrdiff[lora]'")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--model.lora.rank", "0"], "rank >= 1"),
        (["--model.lora.rank", "2", "--model.freeze", "[time.*]"], "leave model.freeze out"),
        (["--model.lora.targets", "[tial]"], "nothing is named tial (did you mean tail?)"),
        (["--model.lora.rnk", "2"], "rnk"),
    ],
)
def test_wrong_adapters_are_one_line(
    work: Path, flags: list[str], expected: str, capsys: Any
) -> None:
    assert run(*flags) == 2
    assert expected in capsys.readouterr().err.splitlines()[-1]


@needs_peft
@pytest.mark.parametrize("targets", [None, ["*.first", "head", "*.film", "merges.0"]])
def test_merged_weights_compute_what_the_adapters_do(targets: list[str] | None) -> None:
    network, merged = tiny(), tiny()
    x, mu, t = images()
    before = network(x, mu, t)
    add_adapters(network, LoRA(rank=3, alpha=5, targets=targets))
    assert torch.equal(network(x, mu, t), before)
    assert all("lora_" in n for n, p in network.named_parameters() if p.requires_grad)
    randomised(network)
    after = network(x, mu, t)
    merged.load_state_dict(merge(network.state_dict(), {"rank": 3, "alpha": 5.0}))
    assert (merged(x, mu, t) - after).abs().max() < 1e-5
    assert (before - after).abs().max() > 1e-3
    assert set(plain_state(network)) == set(merged.state_dict())


@needs_peft
def test_adapters_train_resume_and_ship_as_plain_weights(work: Path, capsys: Any) -> None:
    flags = ["--model.lora.rank", "2", "--model.lora.alpha", "4", "--model.optimizer.lr", "0.05"]
    optimizer = ["--model.optimizer", "torch.optim.AdamW"]
    assert run(*optimizer, *flags) == 0
    assert "loaded all 34 tensors" in capsys.readouterr().err
    trained = weights_of(LAST, "current_model_state")
    base = {name.replace(".base_layer.", "."): value for name, value in trained.items()}
    for name, value in weights_of("old.ckpt").items():
        assert torch.equal(base[name], value)
    assert any(value.abs().max() > 0 for name, value in trained.items() if "lora_B" in name)
    averaged = weights_of(LAST)
    assert any(not torch.equal(averaged[n], v) for n, v in trained.items() if "lora_B" in n)

    # Resumed: the adapters come from the checkpoint.
    again = ["--ckpt_path", "last", "--trainer.max_steps", "5"]
    assert run(*again, start=None) == 1
    assert "has the state of torch.optim.AdamW" in capsys.readouterr().err.splitlines()[-1]
    assert run(*again, *optimizer, start=None) == 0
    assert read(LAST)["global_step"] == 5
    assert run("--ckpt_path", "last", "--model.lora.rank", "3", start=None) == 1
    assert "model.lora of this run" in capsys.readouterr().err.splitlines()[-1]

    # Exported, restored with and started from: merged.
    export_model(LAST, "exported")
    config = yaml.safe_load(Path("exported/config.yaml").read_text())["mrdiff"]["model"]
    assert "lora" not in config
    files = load_file("exported/model.safetensors")
    assert files.keys() == weights_of("old.ckpt").keys()
    assert any(not torch.equal(files[name], v) for name, v in weights_of("old.ckpt").items())
    arguments = ["--checkpoint", str(LAST), "--input", "data/lq", "--output", "out"]
    assert sample.main([*arguments, "--device", "cpu"]) == 0
    assert run("--trainer.max_steps", "1", "--model.freeze", "[time.*]", start=str(LAST)) == 0
    again = weights_of(LAST.parents[2] / "version_1/checkpoints/last.ckpt", "current_model_state")
    assert torch.equal(again["time.layers.0.weight"], files["time.layers.0.weight"])


@needs_peft
def test_the_adapted_module_equals_the_loaded_one(work: Path) -> None:
    assert run("--model.lora", "{rank: 4, targets: ['*.second', head]}") == 0
    module = MRDiffusion(tiny(), lora=LoRA(rank=4, targets=["*.second", "head"]))
    module.load_state_dict(read(LAST)["state_dict"])
    x, mu, t = images()
    loaded = load_model(LAST, "cpu").network
    assert (loaded(x, mu, t) - module.network(x, mu, t)).abs().max() < 1e-5
