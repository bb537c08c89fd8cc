"""Every shipped recipe is instantiated and run; the overlays train models that improve."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks import EMA
from mrdiff import MRSampler, Restorer, TabulatedTheta, load_model, make_sampler
from mrdiff.cli.train.arguments import config_names, prepare
from mrdiff.cli.train.command import main
from mrdiff.cli.train.run import build_run
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.networks.protocol import known_tasks
from mrdiff.photo import write_image
from mrdiff.solvers.run import Sampler
from mrdiff.training.budget import find_budget
from mrdiff.training.losses import L1
from mrdiff.training.objective import OptimalStep
from mrdiff.training.optim import Lion
from tests.places import ROOT
from tests.tiny_model import write_tiny_checkpoint

CONFIGS = ROOT / "configs"
OVERLAYS = ["noise.yaml", "velocity.yaml"]
BASES = ["base.yaml", "task.yaml", "local.yaml"]
LOGGERS = ["loggers/mlflow.yaml", "loggers/wandb.yaml"]  # run by tests/callbacks/test_loggers.py
TASKS = [
    "deblur.yaml",
    "dehaze.yaml",
    "dejpeg.yaml",
    "denoise.yaml",
    "derain.yaml",
    "deraindrop.yaml",
    "deshadow.yaml",
    "desnow.yaml",
    "inpaint.yaml",
    "lowlight.yaml",
    "universal.yaml",
    "wild.yaml",
]
PATHS = {f"paths/{path.name}": path for path in sorted((CONFIGS / "paths").glob("*.yaml"))}
# What else runs: the recipe, the overlays upon it, and what it reads.
COMBINED = {
    **{name: ["derain.yaml", name] for name in PATHS},
    "derain_paired.yaml": ["derain_paired.yaml"],
    "paired.yaml": ["dehaze.yaml", "paired.yaml"],
    "gpu.yaml": ["derain.yaml", "gpu.yaml"],
    "large.yaml": ["dejpeg.yaml", "photos.yaml", "large.yaml"],
    "photos.yaml": ["denoise.yaml", "photos.yaml"],
    "task_folders.yaml": ["universal.yaml", "task_folders.yaml"],
    "finetune.yaml": ["finetune.yaml"],
    "distill.yaml": ["distill.yaml", "paired.yaml"],
    "irsde_paired.yaml": ["irsde_paired.yaml"],
    "refusion_paired.yaml": ["refusion_paired.yaml"],
    "noise.yaml": ["derain.yaml", "noise.yaml"],
    "velocity.yaml": ["derain.yaml", "velocity.yaml"],
}

# What their networks predict, if not ``data``.
WANTED = {
    "noise.yaml": "preconditioned",
    "velocity.yaml": "velocity",
    "distill.yaml": "boundary",
}
# The set-ups of others, with smaller networks.
OFFICIAL = {
    "irsde_paired.yaml": ["--model.network.width", "8", "--model.network.depth", "2"],
    "refusion_paired.yaml": [
        *("--model.network.width", "8", "--model.network.encoder", "[1,2]"),
        *("--model.network.decoder", "[1,1]"),
    ],
}

# The recipe as it is, on fewer and smaller images.
_SMALL = [
    *("--data.train.images", "8", "--data.train.image_size", "128"),
    *("--data.train.length", "32", "--data.val.size", "64", "--data.batch_size", "2"),
]
# An overlay for a GPU, on a CPU.
_ON_CPU = [
    *("--trainer.precision", "32-true", "--minutes", "null", "--data.train.patch_size", "32"),
    *("--trainer.limit_val_batches", "1"),
]
_NO_BAR = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


def run_flags(folder: Path, *, steps: int, every: int) -> list[str]:
    return [
        *("--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(every)),
        *("--trainer.logger.init_args.save_dir", str(folder)),
        *("--trainer.logger.init_args.version", "run", "--data.num_workers", "0", *_NO_BAR),
    ]


def write_pairs(root: Path, *, tasks: Sequence[str] = ()) -> None:
    generator = torch.Generator().manual_seed(0)
    for part, task, kind, i in product(("train", "test"), tasks or [""], ("LQ", "GT"), range(2)):
        image = torch.rand(3, 72, 80, generator=generator)
        write_image(root / part / task / kind / f"{i}.png", image)


@pytest.mark.parametrize("overlay", ["paired.yaml", "photos.yaml"])
@pytest.mark.parametrize(("recipe", "side", "batch"), [("derain", 64, 16), ("deraindrop", 128, 4)])
def test_overlays_keep_the_patches_of_the_recipe(
    recipe: str, side: int, batch: int, overlay: str
) -> None:
    given = ["--config", f"{recipe}.yaml", "--config", overlay, "--data.root", "somewhere"]
    data = build_run(prepare(given)).datamodule
    assert (data.sets["train"].patch_size, data.batch_size) == (side, batch)
    assert data.sets["val"].patch_size is None


def test_every_shipped_config_is_known_and_run() -> None:
    known = {*TASKS, *BASES, *LOGGERS, *COMBINED}
    assert known == {*config_names()}, "a new config needs a row here"


def check_run(run: Path, *, kept: Sampler | None = None) -> Denoiser:
    """The checkpoints are there, and load, with the sampler of the recipe."""
    checkpoints = run / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]
    sampler = Restorer.from_checkpoint(checkpoints / "best.ckpt", device="cpu").sampler
    assert isinstance(sampler, MRSampler)
    assert sampler.options() == (kept or make_sampler("fidelity", nfe=5)).options()
    return load_model(checkpoints / "best.ckpt", "cpu")


@pytest.mark.parametrize("name", TASKS)
def test_task_runs_and_its_checkpoint_loads(name: str, tmp_path: Path) -> None:
    few = ["--trainer.limit_val_batches", "4"]
    assert main(["--config", name, *_SMALL, *few, *run_flags(tmp_path, steps=2, every=2)]) == 0
    denoiser = check_run(tmp_path / name.removesuffix(".yaml") / "run")
    assert denoiser.parameterization.name == "data"
    assert len(known_tasks(denoiser.network)) == (10 if name == "universal.yaml" else 0)


@pytest.mark.parametrize("name", COMBINED)
def test_overlay_runs_and_its_checkpoint_loads(name: str, tmp_path: Path) -> None:
    configs = [flag for config in COMBINED[name] for flag in ("--config", config)]
    flags = run_flags(tmp_path, steps=1, every=1)
    if name in (*OVERLAYS, *PATHS, "gpu.yaml"):
        flags += [*_SMALL, *(_ON_CPU if name == "gpu.yaml" else [])]
    else:
        universal = yaml.safe_load((CONFIGS / "universal.yaml").read_text())
        tasks = universal["data"]["degradation"]["init_args"]["kinds"]
        write_pairs(tmp_path / "pairs", tasks=[*tasks] if name == "task_folders.yaml" else ())
        flags += ["--data.root", str(tmp_path / "pairs"), "--data.batch_size", "2"]
        flags += ["--data.train.patch_size", "32", "--data.val.crop_size", "16"]
    others = {"paths/pmrf.yaml": "--model.start"}
    others |= dict.fromkeys(("finetune.yaml", "distill.yaml"), "--init_from")
    if name in others:
        write_tiny_checkpoint(tmp_path / "tiny.ckpt")
        flags += [others[name], str(tmp_path / "tiny.ckpt")]
    assert main([*configs, *flags, *OFFICIAL.get(name, [])]) == 0
    (run,) = tmp_path.glob("*/run")
    if name in OFFICIAL:
        posterior = MRSampler(nfe=100, order=1, eta=1, grid="uniform_t")
        denoiser, wanted = check_run(run, kept=posterior), "noise"
        assert denoiser.process.schedule == TabulatedTheta.irsde()
    else:
        kept = make_sampler("consistency", nfe=2) if name == "distill.yaml" else None
        denoiser = check_run(run, kept=kept)
        wanted = WANTED.get(name, "data")
    assert denoiser.parameterization.name == wanted
    if name in PATHS:
        kind = yaml.safe_load(PATHS[name].read_text())["model"]["process"]["class_path"]
        assert type(denoiser.process).__name__ == kind.removeprefix("mrdiff.")


def test_a_gpu_is_given_large_batches_and_ten_minutes() -> None:
    """Upon the recipe of ten tasks, which keeps them and its rates."""
    flags = ["--config", "universal.yaml", "--config", "gpu.yaml", "--trainer.precision", "32-true"]
    run = build_run(prepare(flags))
    assert (run.datamodule.batch_size, run.datamodule.sets["train"].patch_size) == (192, 112)
    assert len(known_tasks(run.model.network)) == 10
    assert sum(weight.numel() for weight in run.model.network.parameters()) > 5e6
    budget = find_budget(run.trainer)
    assert budget is not None
    assert (budget.seconds, budget.validations) == (600, 4)
    assert run.trainer.callbacks[0] is budget  # what others write knows of it


def test_the_set_ups_of_others_have_their_numbers() -> None:
    """As the authors' option files have them, in their units."""
    optimizers = {
        "irsde_paired.yaml": (torch.optim.Adam, 1e-4, 10, {200_000: 0.5, 400_000: 0.25}),
        "refusion_paired.yaml": (Lion, 4e-5, 50, {350_000: 0.5, 700_000: 1e-7 / 4e-5}),
    }
    for name, (kind, rate, sigma_max, shares) in optimizers.items():
        run = build_run(prepare(["--config", name, "--data.root", "somewhere", *OFFICIAL[name]]))
        model, data, trainer = run.model, run.datamodule, run.trainer
        assert model.process.schedule == TabulatedTheta.irsde("cosine", steps=100, eps=0.005)
        assert model.process.sigma_max * 255 == pytest.approx(sigma_max)
        assert (model.time_power, model.time_steps) == (1, 100)
        assert (model.objective, type(model.loss)) == (OptimalStep(100), L1)
        assert (data.batch_size, data.sets["train"].patch_size) == (4, 128)
        assert (trainer.max_steps, trainer.val_check_interval) == (700_000, 5000)
        assert trainer.gradient_clip_val is None
        assert trainer.precision == "32-true"
        assert not any(isinstance(callback, EMA) for callback in trainer.callbacks)
        model.trainer = trainer
        found: Any = model.configure_optimizers()
        (group,) = found["optimizer"].param_groups
        assert type(found["optimizer"]) is kind
        assert (group["lr"], group["betas"], group["weight_decay"]) == (rate, (0.9, 0.99), 0)
        schedule = found["lr_scheduler"]["scheduler"]
        for step, share in shares.items():
            schedule.last_epoch = step
            (now,) = getattr(schedule, "_get_closed_form_lr", schedule.get_lr)()
            assert now == pytest.approx(share * rate, rel=3e-3)


def test_the_header_of_each_config_names_commands_that_exist() -> None:
    known = {str(path.relative_to(CONFIGS)): path for path in CONFIGS.rglob("*.yaml")}
    for name, path in known.items():
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"--config ([\w./]+\.yaml)", text)) <= set(known), name
        assert name in BASES or f"--config {name}" in text, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_improve_from_step_100_to_500(overlay: str, tmp_path: Path) -> None:
    """The recipe's own network, on smaller batches and a smaller bank of pictures."""
    bank = ["--data.train.images", "48", "--data.train.image_size", "128", "--data.val.size", "96"]
    bank += ["--data.batch_size", "8", "--trainer.limit_val_batches", "3"]
    flags = run_flags(tmp_path, steps=500, every=100)
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
    assert main(["--config", "derain.yaml", "--config", overlay, *bank, *flags]) == 0
    torch.set_num_threads(1)
    events = EventAccumulator(str(tmp_path / "derain" / "run"))
    events.Reload()
    for tag, sign in (("val/loss", -1), ("val/psnr@5", 1)):
        values = [event.value for event in events.Scalars(tag)]
        assert len(values) == 5
        assert torch.isfinite(torch.tensor(values)).all()
        assert sign * values[-1] > sign * values[0], tag


def test_the_default_recipe_trains_in_bf16(tmp_path: Path) -> None:
    """What a GPU with bfloat16 would choose by itself."""
    precision = ["--trainer.precision", "bf16-mixed"]
    flags = [*_SMALL, *run_flags(tmp_path, steps=2, every=2), *precision]
    assert main(["--config", "derain.yaml", *flags]) == 0


def test_a_schedule_made_by_a_function_is_in_the_checkpoint(tmp_path: Path) -> None:
    table = ["--model.process", "mrdiff.MRProcess"]
    table += ["--model.process.schedule", "mrdiff.TabulatedTheta.irsde"]
    flags = [*_SMALL, *run_flags(tmp_path, steps=1, every=1), *table]
    assert main(["--config", "derain.yaml", *flags]) == 0
    denoiser = load_model(tmp_path / "derain" / "run" / "checkpoints" / "best.ckpt", "cpu")
    assert denoiser.process.schedule == TabulatedTheta.irsde()


def test_a_checkpoint_of_another_meaning_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*_SMALL, *run_flags(tmp_path, steps=1, every=1)]
    assert main(["--config", "derain.yaml", *flags]) == 0
    last = str(tmp_path / "derain" / "run" / "checkpoints" / "last.ckpt")
    wrong = {
        "parameterization": ["--config", "noise.yaml"],
        "process": ["--model.process.std", "0.4"],
        "network": ["--model.network.widths", "[32,64,96,128]"],
    }
    for key, other in wrong.items():
        for command in ("fit", "validate"):
            arguments = [command, "--config", "derain.yaml", *other, *flags, "--ckpt_path", last]
            capsys.readouterr()
            assert main(arguments) == 1
            assert f"model.{key} of this run" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("road", ["workers", "device"])
def test_the_degradations_of_the_docs_train_by_yaml_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, road: str
) -> None:
    """docs/extending.md, word for word: its Python into mine.py, its YAML into fade.yaml."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = text.split("## A degradation")[1].split("## A solver")[0]
    by_image, by_batch, *_ = re.findall(r"```python\n(.*?)```", section, re.S)
    (tmp_path / "mine.py").write_text(by_batch if road == "device" else by_image)
    overlay = tmp_path / "fade.yaml"
    overlay.write_text(re.findall(r"```yaml\n(.*?)```", section, re.S)[0])
    assert yaml.safe_load(overlay.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    flags = [*_SMALL, *run_flags(tmp_path, steps=2, every=2), "--data.degrade_on", road]
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    assert main(["--config", "fade.yaml", *flags]) == 0


def test_the_network_and_the_path_of_the_docs_train_and_are_loaded_where_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    parts = (text.split(title)[1] for title in ("## A path", "## A network"))
    code = [re.findall(r"```python\n(.*?)```", part, re.S)[0] for part in parts]
    (tmp_path / "plain_net.py").write_text("\n".join(code))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    network = ["--model.network", "plain_net.Plain", "--model.network.width", "96"]
    path = ["--model.process", "plain_net.Late", "--model.process.std", "0.3"]
    flags = [*network, *path, *_SMALL, *run_flags(tmp_path, steps=2, every=2)]
    assert main(["--config", "derain.yaml", *flags]) == 0
    checkpoint = tmp_path / "derain" / "run" / "checkpoints" / "best.ckpt"
    with pytest.raises(ValueError, match="allow 'plain_net'"):
        load_model(checkpoint, "cpu")
    denoiser = load_model(checkpoint, "cpu", allow=["plain_net"])
    assert denoiser.network.layers[0].out_channels == 96  # type: ignore[union-attr, index]
    assert (type(denoiser.process).__name__, denoiser.process.std) == ("Late", 0.3)  # type: ignore[attr-defined]


def test_the_solver_of_the_docs_is_mr_ode_1(tmp_path: Path) -> None:
    from mrdiff import MRProcess, MRSampler
    from tests.oracles import GaussianOracle

    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = text.split("## A solver")[1].split("## A network")[0]
    code = re.findall(r"```python\n(.*?)```", section, re.S)[0].replace("noise=None", "noise=noise")
    mu = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    noise = lambda step, shape: torch.ones(shape, dtype=torch.float64)  # noqa: E731
    scope = {"denoiser": GaussianOracle(MRProcess()), "mu": mu, "noise": noise}
    exec(code, scope)
    sampler = MRSampler(nfe=10, order=1, grid="uniform_t")
    expected = sampler(GaussianOracle(MRProcess()), mu, noise=noise)
    assert torch.allclose(scope["restored"], expected, atol=1e-12)  # type: ignore[arg-type]
