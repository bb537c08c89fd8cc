"""The presets against the official sampler: one network, the same noise, real pairs.

Of a model of the mean-reverting process (paths/mr.yaml): the official sampler has no other.

    python -m benchmarks.presets --checkpoint best.ckpt --lq rainy/LQ --gt rainy/GT [--crop 256]

The official sampler (:mod:`mrdiff.official.mars`) runs on its own tables, which differ a little
from the continuous schedule that the network was trained with. It is therefore given the network
twice: as it is, and (``matched``) with each time replaced by the one at which the training schedule
has the state's alpha, which removes that handicap. The stochastic samplers draw the same noise too.
SW is the sliced Wasserstein distance between 7 x 7 patches, times 100.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from datamodules import PairedFolder
from mrdiff.checkpoints.reading import load_model
from mrdiff.diffusion.prediction import Prediction
from mrdiff.diffusion.process import MRProcess
from mrdiff.diffusion.wrappers import DenoiserLike
from mrdiff.metrics import Meter, sliced_wasserstein
from mrdiff.official.mars import MarsSampler, OfficialTables
from mrdiff.solvers.noise import named_noise
from mrdiff.solvers.presets import make_sampler

NFES = (1, 2, 3, 5, 10, 20)
OURS = ("fidelity", "perceptual", "mr-ode-1", "mr-ode-2", "mr-sde-1", "posterior")
OFFICIAL = {
    "official ode-1": ("ode", 1),
    "official ode-2": ("ode", 2),
    "official sde-1": ("sde", 1),
    "official sde-2": ("sde", 2),
}
DIGITS = {"psnr": 2, "lpips": 3, "sw": 2}
Sample = Callable[[Tensor, Callable[..., Tensor]], Tensor]


@dataclass(frozen=True)
class Matched:
    """A denoiser that is asked at the time where its process has the official table's alpha."""

    denoiser: DenoiserLike
    tables: OfficialTables

    @property
    def process(self) -> MRProcess:
        return self.denoiser.process

    def __call__(self, x: Tensor, t: float, mu: Tensor) -> Prediction:
        raw = t * (len(self.tables.times) - 1)
        (point,) = self.tables.at(torch.tensor([raw], dtype=self.tables.times.dtype))
        integral = -torch.log(torch.tensor(min(point.alpha, 1.0), dtype=torch.float64))
        time = self.process.schedule.inverse(integral).clamp(1e-6, 1.0)
        return self.denoiser(x, float(time), mu)


def samplers(denoiser: DenoiserLike) -> Iterator[tuple[str, int, Sample]]:
    """(name, NFE, sampler bound to the network) of all that is compared."""
    tables = OfficialTables.build(
        "cosine",
        steps=100,
        eps=0.005,
        sigma_max=denoiser.process.sigma_max,
        dtype=torch.float32,
    )
    for nfe in NFES:
        for name in OURS:
            ours = make_sampler(name, nfe=nfe)
            yield name, nfe, lambda mu, noise, run=ours: run(denoiser, mu, noise=noise)
        for name, (solver, order) in OFFICIAL.items():
            if nfe < order:
                continue
            official = MarsSampler(nfe=nfe, solver=solver, order=order)  # type: ignore[arg-type]
            for suffix, model in (("", denoiser), (", matched", Matched(denoiser, tables))):
                yield (
                    name + suffix,
                    nfe,
                    lambda mu, noise, run=official, net=model: run(net, mu, noise=noise),
                )


def pairs(options: argparse.Namespace) -> tuple[Tensor, Tensor, list[str]]:
    """Centre crops ``[B, 3, crop, crop]`` of the degraded and of the clean photos, and names."""
    dataset = PairedFolder(options.lq, options.gt, crop_size=options.crop)
    dataset.check()
    samples: list[dict[str, Any]] = [dataset[i] for i in range(len(dataset))]
    lq, gt = (torch.stack([sample[key] for sample in samples]) for key in ("lq", "gt"))
    return lq, gt, [sample["name"] for sample in samples]


def table(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a (sampler, NFE), the input first."""
    denoiser = load_model(options.checkpoint, options.device)
    MarsSampler().check(denoiser.process)
    device = next(denoiser.parameters()).device
    lq, gt, names = pairs(options)
    meter = Meter(("psnr", "lpips"), lpips_weights=options.lpips_weights)

    def score(images: Tensor) -> dict[str, float]:
        means = {name: float(value.mean()) for name, value in meter(images, gt).items()}
        return {**means, "sw": 100 * sliced_wasserstein(images.clamp(0, 1), gt)}

    rows: list[dict[str, Any]] = [{"sampler": "input", "nfe": 0, **score(lq)}]
    runs = list(samplers(denoiser))
    for name, nfe, sample in track(runs, console=Console(stderr=True)):
        restored = [
            sample(lq[i : i + 1].to(device), named_noise(0, names[i : i + 1])).cpu()
            for i in range(len(lq))
        ]
        rows.append({"sampler": name, "nfe": nfe, **score(torch.cat(restored))})
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Samplers down, NFE across; in a cell PSNR / LPIPS / SW."""
    cells = {(row["sampler"], row["nfe"]): row for row in rows}

    def cell(name: str, nfe: int) -> str:
        row = cells.get((name, nfe), {})
        return " / ".join(f"{row[key]:.{digits}f}" for key, digits in DIGITS.items() if key in row)

    names = list(dict.fromkeys(row["sampler"] for row in rows[1:]))
    lines = [f"PSNR / LPIPS / SW; of the input {cell('input', 0)}", ""]
    lines += ["| NFE | " + " | ".join(map(str, NFES)) + " |", "|---" * (len(NFES) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cell(name, nfe) for nfe in NFES)} |" for name in names]
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--lq", type=Path, required=True, help="degraded photos")
    parser.add_argument("--gt", type=Path, required=True, help="the clean ones, of the same names")
    parser.add_argument("--crop", type=int, default=256, help="side of the centre crop")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--lpips_weights")
    options = parser.parse_args(given)
    with torch.inference_mode():
        rows = table(options)
    print(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
