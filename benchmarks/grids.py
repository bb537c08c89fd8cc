"""Optimised time grids against the named ones: calibrated on one set of images, tried on another.

    python -m benchmarks.grids --checkpoint best.ckpt --lq FOLDER --gt FOLDER \\
        [--calibrate synthetic|pairs] [--save FOLDER]

``pairs`` calibrates on every second pair; ``synthetic`` on scikit-image's photos under this
project's rain, so that the search sees nothing of the kind it is tried on. Either way the numbers
are those of the other half of the pairs. Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from datamodules import DemoPhotos, PairedFolder
from datamodules.degradations import Rain
from mrdiff.checkpoints.reading import load_model
from mrdiff.diffusion.denoiser import Denoiser
from mrdiff.metrics import Meter
from mrdiff.solvers.gridfile import write_grid
from mrdiff.solvers.noise import named_noise
from mrdiff.solvers.sampler import MRSampler
from mrdiff.tuning.calibration import Calibration
from mrdiff.tuning.search import FoundGrid
from mrdiff.tuning.spectrum import residual_spectrum, search_spectrum

NFES = (2, 3, 4, 5, 8, 10)
NAMED = ("uniform_log_snr", "uniform_t", "power(2)", "karras")
DIGITS = {"distance": 2, "psnr": 2, "ssim": 4, "lpips": 4}
PLAIN: dict[str, Any] = {"order": 2}
CORRECTED: dict[str, Any] = {"order": 2, "corrector": True}
Samples = list[dict[str, Any]]
Grids = Mapping[int, FoundGrid]


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--lq", type=Path, required=True, help="degraded photos")
    parser.add_argument("--gt", type=Path, required=True, help="the clean ones, of the same names")
    parser.add_argument("--calibrate", choices=("synthetic", "pairs"), default="synthetic")
    parser.add_argument("--images", type=int, default=6, help="to calibrate on, at most")
    parser.add_argument("--crop", type=int, default=128, help="side of the calibration crops")
    parser.add_argument("--test_crop", type=int, default=256, help="side of the others")
    parser.add_argument("--nfes", type=int, nargs="+", default=NFES)
    parser.add_argument("--evaluations", type=int, help="of each search through the network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--lpips_weights")
    parser.add_argument("--save", type=Path, help="folder for the grids found")
    return parser.parse_args(given)


def calibration_samples(options: argparse.Namespace) -> Samples:
    """Crops to search on."""
    if options.calibrate == "pairs":
        pairs = PairedFolder(options.lq, options.gt, crop_size=options.crop)
        return [pairs[i] for i in range(0, len(pairs), 2)][: options.images]
    showers = [DemoPhotos(Rain(), size=options.crop, seed=seed) for seed in (0, 1)]
    samples = [photos[i] for photos in showers for i in range(len(photos))]
    named = [{**sample, "name": f"{sample['name']}-{i}"} for i, sample in enumerate(samples)]
    return named[: options.images]


def test_samples(options: argparse.Namespace) -> Samples:
    """Crops that no search has seen."""
    pairs = PairedFolder(options.lq, options.gt, crop_size=options.test_crop)
    return [pairs[i] for i in range(1, len(pairs), 2)]


def searches(
    denoiser: Denoiser, samples: Samples, options: argparse.Namespace
) -> dict[str, tuple[dict[str, Any], Grids]]:
    """For each way of searching the sampler's options and the grids found."""
    device = next(denoiser.parameters()).device
    mu = torch.stack([sample["lq"] for sample in samples]).to(device)
    noise = named_noise(options.seed, [sample["name"] for sample in samples])
    found: dict[str, tuple[dict[str, Any], Grids]] = {}
    with Progress(console=Console(stderr=True)) as progress:
        for label, solver in (("optimised", PLAIN), ("optimised, corrector", CORRECTED)):
            report = bars(progress, label)
            calibration = Calibration(denoiser, mu, noise=noise, options=solver, progress=report)
            grids = calibration.search(
                options.nfes, evaluations=options.evaluations, progress=report
            )
            found[label] = (solver, grids)
        spectrum = residual_spectrum([sample["gt"] - sample["lq"] for sample in samples])
        for label, solver in (("spectrum", PLAIN), ("spectrum, corrector", CORRECTED)):
            report = bars(progress, label)
            grids = search_spectrum(
                denoiser.process, spectrum, options.nfes, options=solver, progress=report
            )
            found[label] = (solver, grids)
    return found


def bars(progress: Progress, search: str) -> Callable[[str, int, int], None]:
    """A bar for each thing that a search reports."""
    tasks: dict[str, Any] = {}

    def report(label: str, done: int, total: int) -> None:
        if label not in tasks:
            tasks[label] = progress.add_task(f"{search}: {label}", total=total)
        progress.update(tasks[label], completed=done)

    return report


def scores(
    denoiser: Denoiser,
    samples: Samples,
    sampler: MRSampler,
    references: Sequence[Tensor],
    *,
    seed: int,
    meter: Meter,
) -> dict[str, float]:
    """Means over the samples; the distance is the root of the mean square, in grey levels."""
    device = next(denoiser.parameters()).device
    total: dict[str, float] = dict.fromkeys(DIGITS, 0.0)
    for sample, reference in zip(samples, references, strict=True):
        image = sampler(
            denoiser, sample["lq"][None].to(device), noise=named_noise(seed, [sample["name"]])
        ).cpu()
        total["distance"] += float((image - reference).square().mean())
        for name, value in meter(image, sample["gt"][None]).items():
            total[name] += float(value)
    means = {name: value / len(samples) for name, value in total.items()}
    means["distance"] = 255 * means["distance"] ** 0.5
    return means


def references_of(denoiser: Denoiser, samples: Samples, seed: int) -> list[Tensor]:
    """The solutions of 100 calls, ``[1, 3, H, W]`` on the CPU."""
    device = next(denoiser.parameters()).device
    sampler = MRSampler(nfe=100, order=3)
    return [
        sampler(denoiser, s["lq"][None].to(device), noise=named_noise(seed, [s["name"]])).cpu()
        for s in samples
    ]


def tables(
    denoiser: Denoiser,
    samples: Samples,
    found: Mapping[str, tuple[dict[str, Any], Grids]],
    options: argparse.Namespace,
) -> dict[str, dict[int, dict[str, float]]]:
    """Scores by sampler and NFE."""
    meter = Meter(("psnr", "ssim", "lpips"), lpips_weights=options.lpips_weights)
    references = references_of(denoiser, samples, options.seed)
    rows: dict[str, tuple[dict[str, Any], Any]] = {name: (PLAIN, name) for name in NAMED}
    rows["uniform_log_snr, corrector"] = (CORRECTED, "uniform_log_snr")
    for label, (solver, grids) in found.items():
        rows[label] = (solver, {nfe: list(result.times) for nfe, result in grids.items()})
    table: dict[str, dict[int, dict[str, float]]] = {}
    for label, (solver, grid) in rows.items():
        for nfe in options.nfes:
            sampler = MRSampler(nfe=nfe, grid=grid, **solver)
            row = scores(denoiser, samples, sampler, references, seed=options.seed, meter=meter)
            table.setdefault(label, {})[nfe] = row
    return table


def markdown(
    table: Mapping[str, Mapping[int, Mapping[str, float]]],
    found: Mapping[str, tuple[dict[str, Any], Grids]],
    nfes: Sequence[int],
) -> str:
    """One table a metric, then what the searches took and what they found."""
    head = ["| NFE | " + " | ".join(map(str, nfes)) + " |", "|---" * (len(nfes) + 1) + "|"]
    lines: list[str] = []
    for metric, digits in DIGITS.items():
        lines += ["", metric, "", *head]
        for label, row in table.items():
            values = " | ".join(f"{row[nfe][metric]:.{digits}f}" for nfe in nfes)
            lines.append(f"| {label} | {values} |")
    lines += ["", "seconds of the search (runs of the sampler on all calibration crops)", "", *head]
    for label, (_, grids) in found.items():
        cells = (f"{grids[nfe].seconds:.1f} ({grids[nfe].evaluations})" for nfe in nfes)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", "times", ""]
    for label, (_, grids) in found.items():
        for nfe in nfes:
            times = ", ".join(f"{time:.4g}" for time in grids[nfe].times)
            lines.append(f"* {label}, {nfe}: {times}")
    return "\n".join(lines)


def save(
    folder: Path,
    found: Mapping[str, tuple[dict[str, Any], Grids]],
    denoiser: Denoiser,
    calibrate: str,
) -> None:
    """One grid file a search."""
    files = {
        "optimised": "grids_reference",
        "optimised, corrector": "grids_reference_corrector",
        "spectrum": "grids_spectrum",
        "spectrum, corrector": "grids_spectrum_corrector",
    }
    for label, (solver, grids) in found.items():
        times = {nfe: list(result.times) for nfe, result in grids.items()}
        results = {
            nfe: {"before": dict(r.before), "after": r.after, "evaluations": r.evaluations}
            for nfe, r in grids.items()
        }
        made = {"route": label, "calibrated_on": calibrate, "solver": solver, "results": results}
        write_grid(folder / f"{files[label]}.yaml", times, denoiser.process, made=made)


def main(given: Sequence[str] | None = None) -> int:
    options = arguments(given)
    denoiser = load_model(options.checkpoint, options.device)
    found = searches(denoiser, calibration_samples(options), options)
    if options.save:
        save(options.save, found, denoiser, options.calibrate)
    print(markdown(tables(denoiser, test_samples(options), found, options), found, options.nfes))
    return 0


if __name__ == "__main__":
    with torch.no_grad():
        sys.exit(main())
