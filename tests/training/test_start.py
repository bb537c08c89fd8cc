"""A trained model before the path (PMRF): trained with, sampled with, saved with, refused."""

from __future__ import annotations

import copy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch  # noqa: F401  (its log handler must hold the real stderr)
import pytest
import torch
import yaml
from torch import Tensor, nn

from mrdiff import FlowMatching, MRDiffusion, MRProcess, MRSampler, Restorer, load_model
from mrdiff.checkpoints.description import CheckpointError, describe_denoiser
from mrdiff.checkpoints.export import export_model
from mrdiff.cli.train import command as train
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.diffusion.parameterization import DATA
from mrdiff.diffusion.wrappers import AutocastDenoiser, BoundDenoiser
from mrdiff.networks import UNet
from mrdiff.networks.conditions import make_context
from mrdiff.restoration.tiled_denoiser import TiledDenoiser
from mrdiff.solvers.noise import named_noise
from mrdiff.training import ScaledTarget
from tests.tiny_model import PAIRS_CONFIG, write_pairs, write_tiny_checkpoint
from tests.tiny_training import TinyNetwork, loader, tiny_trainer

CONFIG = (
    PAIRS_CONFIG
    + """\
model:
  network:
    class_path: mrdiff.networks.UNet
    init_args: {widths: [4], encoder: [], middle: 1, decoder: [], time_width: 8}
  lr_scheduler:
    class_path: mrdiff.training.WarmupCosine
    init_args: {warmup: 1, total: 1000}
trainer:
  accelerator: cpu
  max_steps: 2
  max_epochs: -1
  default_root_dir: runs
  enable_progress_bar: false
  enable_model_summary: false
  num_sanity_val_steps: 0
  check_val_every_n_epoch: 1
  callbacks:
    - class_path: callbacks.EMA
    - class_path: callbacks.SamplingValidation
      init_args: {nfes: [2], metrics: [psnr]}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {save_last: true, save_top_k: 0}
"""
)
VERSION = Path("runs/lightning_logs/version_0")
LAST = VERSION / "checkpoints/last.ckpt"
FIRST = MRSampler(nfe=1, temperature=0.0)  # what a start is run with
START = "denoiser.start.network."


def randomised(network: Any) -> Any:
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network


def small(**options: Any) -> UNet:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"widths": (4, 4), "encoder": (1,), "middle": 1, "decoder": (1,)}
    return randomised(UNet(**sizes, time_width=8, **options))


def two_stages(start: nn.Module | None = None, **options: Any) -> tuple[Denoiser, Denoiser]:
    """A start and a flow that begins with it, both untrained."""
    first = Denoiser(start or small(), MRProcess(), DATA).eval()
    flow = Denoiser(randomised(small(**options)), FlowMatching(std=0.1), DATA).eval()
    flow.start_from(first)
    return first, flow


def alone(denoiser: Denoiser) -> Denoiser:
    """The same path from where it is given."""
    other = copy.deepcopy(denoiser)
    other.start = None
    return other


def photo(height: int = 40, width: int = 48) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that began with old.ckpt, which is then elsewhere."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [path for path in sys.path if path])
        write_pairs(folder / "data", [f"{i}.png" for i in range(2)])
        write_tiny_checkpoint(folder / "old.ckpt")
        (folder / "tiny.yaml").write_text(CONFIG)
        assert run("--config", "paths/pmrf.yaml", "--model.start", "old.ckpt") == 0
        (folder / "old.ckpt").rename(folder / "gone.ckpt")
    return folder


@pytest.fixture
def work(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, which is the working directory."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    return tmp_path


def run(*arguments: str) -> int:
    return train.main(["--config", "tiny.yaml", *arguments], program="train.py")


def read(path: Path | str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def start_weights(path: Path | str, part: str = "state_dict") -> dict[str, Tensor]:
    """By the names that they have in the checkpoint that the run began with."""
    names = [name for name in read(path)[part] if name.startswith(START)]
    return {n.replace("start.", "", 1): read(path)[part][n] for n in names}


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


# Sampling

WRAPPED: dict[str, Callable[[Denoiser], Any]] = {
    "itself": lambda denoiser: denoiser,
    "bound": lambda denoiser: BoundDenoiser(denoiser, {}),
    "autocast": lambda denoiser: AutocastDenoiser(denoiser, lambda: torch.autocast("cpu")),
    "tiled": lambda denoiser: TiledDenoiser(denoiser, 32, 8),
    "tiled, several together": lambda denoiser: TiledDenoiser(denoiser, 32, 8, together=3),
    "tiled in autocast": lambda denoiser: AutocastDenoiser(
        TiledDenoiser(denoiser, 32, 8), lambda: torch.autocast("cpu")
    ),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("sampler", [MRSampler(nfe=3), MRSampler(nfe=3, order=1, average=True)])
@torch.no_grad()
def test_a_sampler_starts_from_what_the_start_makes(
    wrap: Callable[[Denoiser], Any], sampler: MRSampler
) -> None:
    first, flow = two_stages()
    mu, noise = photo(), named_noise(0, ["a"])
    begun = FIRST(wrap(first), mu)
    by_hand = sampler(wrap(alone(flow)), begun, noise=noise)
    calls = list[float]()
    got = sampler(wrap(flow), mu, noise=noise, callback=lambda _, t, *rest: calls.append(t))
    assert torch.equal(got, by_hand)
    assert len(calls) == 3  # the start's is not among them
    assert (begun - mu).abs().max() > 0.01
    assert (got - sampler(wrap(alone(flow)), mu, noise=noise)).abs().max() > 0.01


@torch.no_grad()
def test_a_start_of_tasks_judges_the_whole_photo_by_itself() -> None:
    first, flow = two_stages(small(tasks=("rain", "haze")))
    mu, noise = photo(100, 120), named_noise(0, ["a"])
    tiles: Any = {"tile": 32, "overlap": 8}
    context = make_context(first.network, mu)
    assert context is not None
    sure = {"task": torch.tensor([[1.0, 0.0]])}
    begun = [FIRST(TiledDenoiser(first, **tiles, context=c), mu) for c in (context, sure)]
    assert not torch.equal(*begun)
    by_hand = MRSampler(nfe=2)(TiledDenoiser(alone(flow), **tiles), begun[0], noise=noise)
    got = MRSampler(nfe=2)(TiledDenoiser(flow, **tiles), mu, noise=noise)
    assert torch.equal(got, by_hand)


@torch.no_grad()
def test_a_start_is_given_the_mask() -> None:
    first, flow = two_stages(small(mask=True), mask=True)
    mu, mask = photo(), torch.ones(1, 1, 40, 48)
    mask[..., 10:20, :] = 0
    begun = FIRST(BoundDenoiser(first, {"mask": mask}), mu)
    assert not torch.equal(begun, FIRST(first, mu))
    by_hand = FIRST(BoundDenoiser(alone(flow), {"mask": mask}), begun)
    assert torch.equal(FIRST(BoundDenoiser(flow, {"mask": mask}), mu), by_hand)


@pytest.mark.parametrize("tile", ["off", "auto", 64])
def test_the_checkpoint_alone_restores(work: Path, tile: str | int) -> None:
    restorer = Restorer.from_checkpoint(LAST, device="cpu", tile=tile)
    mu = photo(100, 90)
    denoiser, first = load_model(LAST, "cpu"), load_model("gone.ckpt", "cpu")

    def cut(model: Denoiser) -> Any:
        return model if isinstance(tile, str) else TiledDenoiser(model, tile, tile // 4)

    with torch.no_grad():
        begun = FIRST(cut(first), mu)
        noise = named_noise(0, ["name"])
        by_hand = restorer.sampler(cut(alone(denoiser)), begun, noise=noise).clamp(0, 1)
    restored = restorer.restore(mu, ["name"])
    assert torch.equal(restored, by_hand)
    assert (restored - Restorer(alone(denoiser)).restore(mu, ["name"])).abs().max() > 0.01


# Training


def test_the_run_trains_the_path_alone(work: Path) -> None:
    network = UNet(widths=(4,), encoder=(), middle=1, decoder=(), time_width=8)
    groups = read(LAST)["optimizer_states"][0]["param_groups"]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    old = read("gone.ckpt")["state_dict"]
    for part in ("state_dict", "current_model_state"):
        assert_equal(start_weights(LAST, part), old)


def test_what_is_saved_describes_the_start(work: Path) -> None:
    model = read(LAST)["mrdiff"]["model"]
    assert model["start"] == describe_denoiser(load_model("gone.ckpt", "cpu"))
    assert yaml.safe_load((VERSION / "config.yaml").read_text())["model"]["start"] == "old.ckpt"


class Recorded(ScaledTarget):
    """Keeps the images that the path is given."""

    def __init__(self) -> None:
        self.seen = list[Tensor]()

    def __call__(self, denoiser: Denoiser, x0: Tensor, mu: Tensor, *rest: Any) -> Any:
        self.seen.append(mu)
        return super().__call__(denoiser, x0, mu, *rest)


def test_the_losses_are_of_a_path_from_the_start(tmp_path: Path) -> None:
    first = Denoiser(TinyNetwork(), MRProcess(), DATA).eval()
    first.network.norm.running_mean.fill_(0.3)  # which a batch in training mode would change
    before = copy.deepcopy(first)
    objective = Recorded()
    module = MRDiffusion(TinyNetwork(), FlowMatching(), objective=objective)
    module.denoiser.start_from(first)
    data = loader(count=4)
    trainer = tiny_trainer(tmp_path, max_epochs=1, max_steps=1)
    trainer.fit(module.train(), data, data)
    with torch.no_grad():
        expected = FIRST(before, next(iter(data))["lq"])
    assert len(objective.seen) == 2  # of training and of validation
    for seen in objective.seen:
        assert torch.equal(seen, expected)
    assert_equal(first.state_dict(), before.state_dict())
    learning = [p for group in trainer.optimizers[0].param_groups for p in group["params"]]
    assert {*map(id, learning)} == {*map(id, module.network.parameters())}


def test_a_resumed_run_needs_no_other_file(work: Path) -> None:
    more = ["--config", "paths/pmrf.yaml", "--model.start", "old.ckpt", "--ckpt_path", "last"]
    assert run(*more, "--trainer.max_steps", "4") == 0
    assert read(LAST)["global_step"] == 4
    assert_equal(start_weights(LAST), read("gone.ckpt")["state_dict"])
    saved = VERSION / "config.yaml"
    assert yaml.safe_load(saved.read_text())["model"]["start"] == "old.ckpt"
    evaluated = ["validate", "--config", str(saved), "--ckpt_path", str(LAST)]
    assert train.main(evaluated, program="train.py") == 0


def test_a_new_run_goes_on_with_the_start_of_its_weights_or_another(work: Path) -> None:
    write_tiny_checkpoint(Path("other.ckpt"), identity=True)
    begun = {None: "gone.ckpt", "other.ckpt": "other.ckpt"}
    for version, (given, source) in enumerate(begun.items(), start=1):
        flags = [] if given is None else ["--model.start", given]
        assert run("--init_from", str(LAST), *flags) == 0
        last = Path("runs/lightning_logs") / f"version_{version}" / "checkpoints/last.ckpt"
        assert_equal(start_weights(last), read(source)["state_dict"])


def test_a_checkpoint_without_a_start_is_not_resumed_with_one(work: Path, capsys: Any) -> None:
    write_tiny_checkpoint(Path("old.ckpt"))
    assert run("--trainer.default_root_dir", "plain") == 0
    last = "plain/lightning_logs/version_0/checkpoints/last.ckpt"
    assert run("--ckpt_path", last, "--model.start", "old.ckpt") == 1
    assert "model.start of this run" in capsys.readouterr().err.splitlines()[-1]


# Files


def test_an_exported_folder_has_both(work: Path) -> None:
    export_model(LAST, "exported")
    whole, read_again = load_model(LAST, "cpu"), load_model("exported", "cpu")
    assert_equal(read_again.state_dict(), whole.state_dict())
    assert describe_denoiser(read_again) == describe_denoiser(whole)
    assert not any(p.requires_grad for p in read_again.parameters())
    (Path("exported") / "start.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"the weights of model\.start"):
        load_model("exported", "cpu")


def hostile(part: str, **values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda start: (start[part]["init_args"] if part else start).update(values)


FOREIGN = {"class_path": "torch.nn.Sequential", "init_args": {}}
HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "class": (hostile("", network=FOREIGN), "outside the allowed packages"),
    "blocks": (hostile("network", middle=60_000), "larger than its weights"),
    "other weights": (hostile("network", encoder=[2]), "do not fit"),
    "channels": (hostile("network", channels=1), "do not fit"),
    "schedule": (hostile("process", schedule="evil.Schedule"), "cannot be of the type str"),
    "data_std": (hostile("", data_std=float("nan")), "model.start"),
    "network": (hostile("", network="evil.Net"), "model.start"),
    "a start": (hostile("", start={}), "model.start"),
}


@pytest.mark.parametrize(("edit", "why"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_description_is_refused(
    work: Path, edit: Callable[[dict[str, Any]], Any], why: str
) -> None:
    content = read(LAST)
    edit(content["mrdiff"]["model"]["start"])
    torch.save(content, "hostile.ckpt")
    with pytest.raises(CheckpointError, match=why) as caught:
        load_model("hostile.ckpt", "cpu")
    assert str(caught.value).startswith("hostile.ckpt: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("start", ["old.ckpt", 3, [], {}], ids=str)
def test_a_start_that_is_no_description_is_refused(work: Path, start: Any) -> None:
    content = read(LAST)
    content["mrdiff"]["model"]["start"] = start
    torch.save(content, "hostile.ckpt")
    with pytest.raises(CheckpointError, match=r"model\.start in its description"):
        load_model("hostile.ckpt", "cpu")


def test_weights_of_a_start_that_are_not_finite_are_refused(work: Path) -> None:
    content = read(LAST)
    content["state_dict"][START + "head.weight"] /= 0
    torch.save(content, "hostile.ckpt")
    with pytest.raises(CheckpointError, match="not finite"):
        load_model("hostile.ckpt", "cpu")


def test_what_cannot_be_a_start_is_one_line(work: Path, capsys: Any) -> None:
    write_tiny_checkpoint(Path("grey.ckpt"), channels=1)
    write_tiny_checkpoint(Path("masks.ckpt"), mask=True)
    Path("text.ckpt").write_text("none")
    wrong = {
        str(LAST): "starts from another model itself",
        "grey.ckpt": "has 1 image channels, model.network has 3",
        "masks.ckpt": "takes masks",
        "text.ckpt": "text.ckpt is not a readable checkpoint",
        "missing.ckpt": "no checkpoint at missing.ckpt",
    }
    for path, why in wrong.items():
        assert run("--model.start", path) == 2
        error = capsys.readouterr().err.splitlines()
        assert [line for line in error if "error" in line] == error[-1:]
        assert error[-1].startswith("train.py: error: model.start")
        assert why in error[-1]
