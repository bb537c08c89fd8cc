"""Distilled students at one and two calls, beside what they were distilled from.

    python -m benchmarks.distillation oracle [--minutes 10]
    python -m benchmarks.distillation photos --teacher best.ckpt [--minutes 10] [--pairs FOLDER]

``oracle``: the pixels of :mod:`benchmarks.oracle_nfe`, draws of a mixture of three Gaussians. A
small network learns to denoise them in a fifth of the minutes and is distilled in the rest. Prints
the 2-Wasserstein distance to the mixture in grey levels at one call and, for several middle times,
at two; beside it the exact denoiser's.

``photos``: distils by the real command, for so many minutes. Prints PSNR / LPIPS / the sliced
Wasserstein distance between patches (SW, times 100) and the seconds a photo, of the student and the
teacher, on the recipe's validation photos and on the middle 512 x 512 pixels of the pairs.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from benchmarks.evaluation import SHARED, own_photos, pairs_of, train_for
from benchmarks.oracle_nfe import MIXTURES, PROCESS, residuals
from benchmarks.paths import scores
from callbacks import EMA
from mrdiff import MRDiffusion, MRSampler, make_sampler
from mrdiff.checkpoints.reading import load_model
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.metrics import Meter
from mrdiff.solvers.oracle import MixtureOracle, wasserstein2
from mrdiff.training import L2, Consistency
from mrdiff.training.budget import TRAINER_OPTIONS, Budget

MIDDLES = (0.7, 0.5, 0.4, 0.3, 0.2, 0.1)
DATA_STD = 0.25  # of the mixture
TEACHER = [("perceptual", 1), ("perceptual", 2), ("mr-ode-2", 2), ("perceptual", 5)]
TEACHER += [("perceptual", 10), ("fidelity", 10)]
STUDENT = [("consistency", 1), ("consistency", 2), ("perceptual", 5), ("mr-ode-2", 2)]


class PixelNetwork(nn.Module):
    """A perceptron for each pixel by itself, of its value and the time; for one channel."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.head = nn.Conv2d(1 + 16, width, 1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(4))
        self.times = nn.ModuleList(nn.Linear(32, width) for _ in range(4))
        self.tail = nn.Conv2d(width, 1, 1)
        self.register_buffer("rates", torch.arange(1, 17), persistent=False)
        self.register_buffer("waves", torch.linspace(2, 32, 8)[:, None, None], persistent=False)

    def forward(self, x: Tensor, mu: Tensor, t: Tensor, context: object = None) -> Tensor:
        alpha, sigma = (share.to(x.dtype)[:, None] for share in PROCESS.shares(t.double()))
        clock = torch.atan2(sigma, DATA_STD * alpha) * self.rates
        time = torch.cat([torch.sin(clock), torch.cos(clock)], dim=1)
        size = torch.hypot(DATA_STD * alpha, sigma)[:, :, None, None]
        y = (x - mu) / size
        h = self.head(torch.cat([y, torch.sin(y * self.waves), torch.cos(y * self.waves)], dim=1))
        for layer, scale in zip(self.layers, self.times, strict=True):
            gain = 1 + scale(time)[:, :, None, None]
            h = h + nn.functional.silu(layer(nn.functional.silu(h)) * gain)
        out: Tensor = self.tail(h)
        return out


class Pixels(IterableDataset[dict[str, Tensor]]):
    """Batches of residuals drawn from a mixture, above a degraded image of zeros."""

    def __init__(self, oracle: MixtureOracle, shape: tuple[int, ...] = (128, 1, 1, 32)) -> None:
        self.means, self.stds = torch.tensor(oracle.means), torch.tensor(oracle.stds)
        self.weights, self.shape = torch.tensor(oracle.weights), shape

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        count = math.prod(self.shape)
        while True:
            mode = torch.multinomial(self.weights, count, replacement=True)
            y0 = self.means[mode] + self.stds[mode] * torch.randn(count)
            yield {"gt": y0.reshape(self.shape), "lq": torch.zeros(self.shape)}


def train(module: MRDiffusion, oracle: MixtureOracle, minutes: float) -> Trainer:
    """For so many minutes; the module ends with averaged weights."""
    options = {**TRAINER_OPTIONS, "logger": False, "enable_checkpointing": False}
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    callbacks = [Budget(minutes=minutes), EMA(decay=0.999)]
    trainer = Trainer(**options, callbacks=callbacks, gradient_clip_val=1.0)  # type: ignore[arg-type]
    trainer.fit(module, DataLoader(Pixels(oracle), batch_size=None))
    return trainer


def oracle_table(minutes: float, intervals: tuple[int, int], target: Any) -> str:
    torch.manual_seed(0)
    oracle = MixtureOracle(PROCESS, *MIXTURES["three"])
    adam = torch.optim.AdamW
    network = PixelNetwork()
    of = {"data_std": DATA_STD, "optimizer": lambda weights: adam(weights, lr=2e-3)}
    teacher = MRDiffusion(network, PROCESS, loss=L2(), **of)
    trainer = train(teacher, oracle, 0.2 * minutes)
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/teacher.ckpt"
        trainer.save_checkpoint(file)
        objective = Consistency(intervals=intervals, rollout=0.0, target=target, teacher=file)
        student = MRDiffusion(network, PROCESS, loss=L2(), objective=objective, **of)
        train(student, oracle, 0.8 * minutes)
    steps = student.trainer.global_step
    lines = [
        f"{steps} steps of distillation",
        "",
        f"| W2 x 255 at NFE | 1 | {' | '.join(f'2, by t = {t:g}' for t in MIDDLES)} |",
    ]
    lines.append("|---" * (2 + len(MIDDLES)) + "|")
    for name, denoiser in (
        ("exact denoiser", oracle),
        ("student", student.denoiser.eval().double()),
    ):
        cells = [distance(denoiser, oracle, (1.0, 0.0))]
        cells += [distance(denoiser, oracle, (1.0, t, 0.0)) for t in MIDDLES]
        lines.append(f"| {name} | {' | '.join(f'{255 * each:.2f}' for each in cells)} |")
    return "\n".join(lines)


@torch.no_grad()
def distance(
    denoiser: Denoiser | MixtureOracle, oracle: MixtureOracle, times: Sequence[float]
) -> float:
    """W2 of what consistency sampling makes by way of these times."""
    sampler = MRSampler(nfe=len(times) - 1, order=1, eta=math.inf, grid=times)
    return wasserstein2(residuals(sampler, denoiser), oracle)


def photo_table(options: argparse.Namespace) -> Iterator[str]:
    sets = {"own photos": own_photos(options.config), "pairs": pairs_of(options.pairs)}
    with tempfile.TemporaryDirectory() as scratch:
        flags = ["--config", "distill.yaml", "--init_from", str(options.teacher)]
        trained = train_for(options.minutes, flags, options.keep or Path(scratch))
        student = load_model(trained.checkpoint, "cpu")
    yield f"distilled in {trained.spent}"
    yield ""
    yield f"| | sampler | NFE | {' | '.join(sets)} | seconds a photo |"
    yield "|---" * (4 + len(sets)) + "|"
    meter = Meter(("psnr", "lpips"))
    teacher = load_model(options.teacher, "cpu")
    for name, denoiser, runs in (("teacher", teacher, TEACHER), ("student", student, STUDENT)):
        for sampler, nfe in runs:
            run = make_sampler(sampler, nfe=nfe)
            found = [scores(denoiser, samples, run, meter) for samples in sets.values()]
            cells = [f"{psnr:.2f} / {lp:.3f} / {sw:.2f}" for psnr, lp, sw, _ in found]
            yield f"| {name} | {sampler} | {nfe} | {' | '.join(cells)} | {found[0][-1]:.3f} |"


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("oracle", "photos"))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--intervals", type=int, nargs=2, default=(4, 256), help="of the oracle")
    parser.add_argument("--target", choices=("data", "teacher"), default="data")
    parser.add_argument("--teacher", type=Path, help="checkpoint")
    parser.add_argument("--config", default="derain.yaml", help="the recipe of the teacher")
    parser.add_argument("--pairs", type=Path, default=SHARED / "data" / "paired" / "rainy")
    parser.add_argument("--keep", type=Path, help="folder for the run")
    options = parser.parse_args(given)
    print(f"## {options.what.capitalize()}\n", flush=True)
    if options.what == "oracle":
        print(oracle_table(options.minutes, tuple(options.intervals), options.target))
        return 0
    if options.teacher is None:
        parser.error("photos needs --teacher")
    for line in photo_table(options):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
