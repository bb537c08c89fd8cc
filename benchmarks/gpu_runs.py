"""The parts of :mod:`benchmarks.gpu` that run whole commands: restoring, training, checks."""

from __future__ import annotations

import csv
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from benchmarks.official_nets import awake
from benchmarks.throughput import fill
from mrdiff import Denoiser, MRProcess, Restorer
from mrdiff.acceleration.precision import set_precision
from mrdiff.cli.common.jobs import find_photos
from mrdiff.cli.common.targets import plan_targets
from mrdiff.cli.sample.photos import restore_all
from mrdiff.cli.train.arguments import prepare
from mrdiff.cli.train.run import build_run
from mrdiff.diffusion.parameterization import DATA
from mrdiff.metrics import psnr
from mrdiff.networks import UNet
from mrdiff.restoration.graphs import Graphs
from mrdiff.system.devices import computes_in
from mrdiff.system.memory import forget_peak, peak
from mrdiff.system.names import SAMPLERS

ROOT = Path(__file__).parents[1]
SMALL: dict[str, Any] = {"widths": (32, 64, 96, 160), "encoder": (1, 1, 1), "middle": 2}
SMALL |= {"decoder": (1, 1, 1)}
LARGE: dict[str, Any] = {"widths": (64, 96, 144, 192), "encoder": (2, 2, 2), "middle": 3}
LARGE |= {"decoder": (2, 2, 2)}
TESTS = ["tests/restoration/test_graphs.py", "tests/training/test_step.py"]


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def counted(work: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Operations of some work, and on a GPU kernels, copies from the host, and waits."""
    with _Operations() as operations:
        work()
    found: dict[str, float] = {"operations": operations.count}
    if device.type == "cuda":
        with torch.profiler.profile() as profile:
            work()
        names = Counter(event.name for event in profile.events())
        kernels = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
        moved = [e for e in kernels if e.name.startswith(("Memcpy", "Memset"))]
        found["kernels"] = len(kernels) - len(moved)
        found["uploads"] = sum(e.name.startswith("Memcpy HtoD") for e in moved)
        waits = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
        found["waits"] = sum(names[name] for name in waits)
    return found


def model(device: torch.device, *, smoke: bool) -> Denoiser:
    """The derain recipe's network, untrained."""
    torch.manual_seed(0)
    network = awake(UNet(widths=(8, 16), encoder=(1,), decoder=(1,)) if smoke else UNet(**SMALL))
    return Denoiser(network, MRProcess(), DATA).to(device).eval()


def restore(device: torch.device, *, smoke: bool) -> Iterator[dict[str, Any]]:
    restorer = Restorer(model(device, smoke=smoke))
    set_precision(restorer.denoiser.network)
    count, side = (6, 64) if smoke else (768, 128)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "in"
        source.mkdir()
        fill(source, count, side)
        for turn in ("cold", "warm"):
            start = time.perf_counter()
            outcome = restore_all(restorer, plan_targets(find_photos(source), Path(scratch) / turn))
            rate = count / (time.perf_counter() - start)
            row = {"row": "restore", "photos": count, "side": side, "turn": turn}
            yield {**row, "photos_per_s": rate, "failed": len(outcome.failures)}
    height, width = (160, 240) if smoke else (4000, 6000)
    image = torch.rand(1, 3, height, width)
    for turn in ("cold", "warm"):
        forget_peak(device)
        start = time.perf_counter()
        restorer.restore(image, ["a"])
        seconds, most = time.perf_counter() - start, peak(device) or 0
        row = {"row": "restore", "megapixels": height * width / 1e6, "turn": turn}
        yield {**row, "seconds": seconds, "gib": most / 2**30}


_TINY = [
    *("--data.train.images", "4", "--data.train.image_size", "96", "--data.train.length", "16"),
    *("--data.val.size", "64", "--data.batch_size", "2", "--data.train.patch_size", "32"),
    *("--model.network.widths", "[8, 16, 16, 16]", "--trainer.precision", "32-true"),
]


def train(device: torch.device, *, seconds: float, smoke: bool) -> Iterator[dict[str, Any]]:
    for recipe in (["derain.yaml"], ["derain.yaml", "gpu.yaml"]):
        given = [part for name in recipe for part in ("--config", name)]
        given += [*_TINY, "--trainer.accelerator", "cpu"] if smoke else []
        if device.type == "cuda":  # compiling takes longer than all that is measured
            given += ["--minutes", "null", "--trainer.max_steps", "300", "--model.compile", "true"]
        else:
            given += ["--minutes", str(max(2.0, seconds) / 60)]
        given += ["--trainer.log_every_n_steps", "5"]
        for how, run in (("train.py", _command), ("resident batch", _resident)):
            with tempfile.TemporaryDirectory() as folder:
                logger = "lightning.pytorch.loggers.CSVLogger"
                logged = ["--trainer.logger", logger, "--trainer.logger.save_dir", folder]
                quiet = [
                    "--trainer.enable_progress_bar=false",
                    "--trainer.enable_model_summary=false",
                ]
                run([*given, *logged, "--trainer.logger.name", ".", *quiet])
                row = {"row": "train", "recipe": "+".join(recipe), "how": how}
                yield {**row, "images_per_s": _rate(Path(folder))}


def _command(arguments: list[str]) -> None:
    command = [sys.executable, "train.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])


def _resident(arguments: list[str]) -> None:
    """The same run on its first batch, over and over, where the network is."""
    run = build_run(prepare(arguments))
    seed_everything(0, verbose=False)
    run.datamodule.prepare_data()
    run.datamodule.trainer = run.trainer
    run.datamodule.setup("fit")
    batch = next(iter(run.datamodule.train_dataloader()))
    device = run.trainer.strategy.root_device
    batch = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    run.trainer.fit(run.model, train_dataloaders=_Again(batch))


class _Again(DataLoader[Any]):
    def __init__(self, batch: dict[str, Any]) -> None:
        super().__init__([0], batch_size=1)
        self._batch = batch

    def __iter__(self) -> Any:
        return repeat(self._batch, len(self))

    def __len__(self) -> int:
        return 1_000_000


def _rate(folder: Path) -> float:
    """The median of what was logged, but for the first half, in which programs are made."""
    with next(folder.rglob("metrics.csv")).open() as file:
        column = [row["train/images_per_s"] for row in csv.DictReader(file)]
    rates = [float(value) for value in column if value]
    return statistics.median(rates[len(rates) // 2 :])


def check(device: torch.device, *, smoke: bool) -> Iterator[dict[str, Any]]:
    """Raises nothing: what is wrong is a row."""
    side, denoiser = (32 if smoke else 128), model(device, smoke=smoke)
    images = [torch.rand(1, 3, side, side) for _ in range(5)]

    def restored(restorer: Restorer) -> list[Tensor]:
        return [restorer.restore(image, [str(i)]) for i, image in enumerate(images)]

    for name in SAMPLERS:
        eager, graphed = (Restorer(denoiser, sampler=name) for _ in range(2))
        eager.graphs = Graphs(device_type="none")
        same = all(map(torch.equal, restored(graphed), restored(eager)))
        yield {"row": "check", "what": f"graph of {name}", "equal": same} | _wrong(same)
    set_precision(denoiser.network, "fp32")
    exact = torch.cat(restored(Restorer(denoiser)))
    for precision in ("tf32", "bf16", "fp16"):
        if computes_in(precision, device):
            other = model(device, smoke=smoke)
            set_precision(other.network, precision)
            db = float(psnr(torch.cat(restored(Restorer(other))), exact).mean())
            yield {"row": "check", "what": f"{precision} against fp32", "psnr": db} | _wrong(
                db > 30
            )
    yield _tested(["--collect-only"] if smoke else [])


def _wrong(right: bool) -> dict[str, str]:
    return {} if right else {"error": "it is not"}


def _tested(options: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "slow or not slow", *TESTS, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    return {"row": "check", "what": "tests", "said": last} | _wrong(done.returncode == 0)
