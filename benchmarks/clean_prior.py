"""What each ingredient of the dead-leaves pictures brings on real photos, steps being equal.

    python -m benchmarks.clean_prior --keep FOLDER [--steps 2000] [--configs derain denoise]
        [--rows plain plain+texture all all-text clean/train] [--seeds 0 1] [--photos FOLDER ...]

Rows are looks, of which `plain` is discs alone and `all` is the usual look, and folders of clean
pictures (`--photos`), which the network learns from instead: real photos are the reference. Each
row is trained by the real command and measured at NFE 5 with the sampler `fidelity`: (i) photos it
has not seen, under the recipe's own degradation; (ii) pairs whose degradation was made by others.
Scores are kept in FOLDER as they come, so that rows can be run one at a time; the table shows all
that are there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import yaml

from benchmarks.evaluation import SHARED, quality, train_for, train_steps
from datamodules import CleanFolder, PairedFolder, Sample
from datamodules.leaves.look import LOOK, PLAIN, LeafLook, ingredients
from mrdiff.checkpoints.reading import load_model
from mrdiff.cli.train.arguments import prepare
from mrdiff.cli.train.run import build_run
from mrdiff.metrics import LPIPS

PAIRS = {"derain": "rainy", "denoise": "noisy"}
# What shows only on something else.
_NEEDS = {"stripes": "texture", "fur": "texture", "motley": "texture", "upright": "shapes"}
Scores = dict[str, dict[str, float]]  # by "(i)" and "(ii)", then by metric
BySeed = dict[int, Scores]


def looks() -> dict[str, LeafLook]:
    """Every look of the ablation by the name of its row."""
    named = {"plain": PLAIN, "all": LOOK}
    for name in ingredients():
        added = {part: getattr(LOOK, part) for part in (name, _NEEDS.get(name, name))}
        named[f"plain+{name}"] = replace(PLAIN, **added)
        named[f"all-{name}"] = replace(LOOK, **{name: 0.0})
    return named


def _arguments(source: LeafLook | Path, config: str, seed: int, folder: Path) -> list[str]:
    """The arguments of ``train.py`` that learn from a look or from a folder of pictures."""
    if isinstance(source, LeafLook):
        look = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(source).items()}
        train = {"init_args": {"look": look}}
    else:
        given = {"path": str(source), "degradation": "${data.degradation}", "patch_size": 64}
        train = {"class_path": "datamodules.CleanFolder", "init_args": given}
    overlay = folder / "source.yaml"
    overlay.write_text(yaml.safe_dump({"data": {"train": train}}))
    seeds = ["--seed_everything", str(seed), "--data.seed", str(seed)]
    return ["--config", f"{config}.yaml", "--config", str(overlay), *seeds]


def _evenly(dataset: CleanFolder | PairedFolder, count: int) -> list[Sample]:
    count = min(count, len(dataset))
    return [dataset[i * len(dataset) // count] for i in range(count)]


def measured_on(config: str, photos: Path, pairs: Path, *, count: int, crop: int) -> dict:
    """The samples of (i) and (ii), the same for all rows."""
    degradation = build_run(prepare(["--config", f"{config}.yaml"])).datamodule.degradation
    pair = pairs / PAIRS[config]
    return {
        "(i)": _evenly(CleanFolder(str(photos), degradation, crop_size=crop), count),
        "(ii)": _evenly(PairedFolder(str(pair / "LQ"), str(pair / "GT"), crop_size=crop), count),
    }


def run_row(
    source: LeafLook | Path, config: str, seed: int, samples: dict, options: argparse.Namespace
) -> Scores:
    """Train on one source of clean pictures and measure."""
    lpips = LPIPS.find()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = _arguments(source, config, seed, Path(scratch))
        if options.minutes:
            run = train_for(options.minutes, arguments, Path(scratch) / "run")
        else:
            run = train_steps(options.steps, arguments, Path(scratch) / "run")
        denoiser = load_model(run.checkpoint, "cpu")
    scores = {name: quality(denoiser, those, lpips=lpips).after for name, those in samples.items()}
    return scores | {"trained": {"steps": run.steps, "minutes": run.minutes}}


def _mean(scores: BySeed, where: str, metric: str) -> float:
    return statistics.mean(one[where][metric] for one in scores.values())


def _gain(scores: BySeed, plain: BySeed, where: str) -> str:
    """Mean over the seeds of both, and the deviation between seeds if there are several."""
    gains = [scores[s][where]["psnr"] - plain[s][where]["psnr"] for s in scores if s in plain]
    if not gains:
        return "-"
    spread = f" ± {statistics.stdev(gains):.2f}" if len(gains) > 1 else ""
    return f"{statistics.mean(gains):+.2f}{spread}"


def table(found: dict[str, BySeed]) -> str:
    """The Markdown table of one recipe: means over seeds, gain over plain in dB."""
    head = ["row", *("PSNR (i)", "gain", "SSIM", "LPIPS"), *("PSNR (ii)", "gain", "SSIM", "LPIPS")]
    head += ["seeds", "steps"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, scores in found.items():
        cells = [name]
        for where in ("(i)", "(ii)"):
            cells.append(f"{_mean(scores, where, 'psnr'):.2f}")
            cells.append(_gain(scores, found.get("plain", {}), where))
            for metric in ("ssim", "lpips"):
                there = all(metric in one[where] for one in scores.values())
                cells.append(f"{_mean(scores, where, metric):.3f}" if there else "-")
        cells += [str(len(scores)), str(round(_mean(scores, "trained", "steps")))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _kept(options: argparse.Namespace, config: str, row: str, source: object) -> dict[int, Path]:
    """Where the scores of a row lie or will lie, by seed; another look is another file."""
    budget = f"{options.minutes}min" if options.minutes else f"{options.steps}steps"
    folder = options.keep / config / f"{budget}-{options.count}x{options.crop}"
    mark = hashlib.blake2b(repr(source).encode(), digest_size=4).hexdigest()
    name = f"{row.replace('/', '_')}-{mark}"
    return {seed: folder / f"{name}-{seed}.json" for seed in options.seeds}


def _read(files: dict[int, Path]) -> BySeed:
    return {seed: json.loads(file.read_text()) for seed, file in files.items() if file.is_file()}


def _options(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, required=True, help="folder for the scores")
    parser.add_argument("--configs", nargs="+", default=list(PAIRS), choices=PAIRS)
    parser.add_argument(
        "--rows", nargs="+", help="default: plain, every plain+X, all, and the folders"
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--minutes", type=float, help="train for so long instead")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--photos", type=Path, nargs="+", default=[SHARED / "data/clean/train"])
    parser.add_argument("--unseen", type=Path, default=SHARED / "data/clean/val")
    parser.add_argument("--pairs", type=Path, default=SHARED / "data/paired")
    parser.add_argument("--count", type=int, default=24, help="images measured on, of each kind")
    parser.add_argument("--crop", type=int, default=192)
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    options = _options(given)
    sources: dict[str, LeafLook | Path] = dict(looks())
    sources |= {f"{path.parent.name}/{path.name}": path.resolve() for path in options.photos}
    rows = options.rows or [name for name in sources if not name.startswith("all-")]
    if missing := [row for row in rows if row not in sources]:
        raise SystemExit(f"no row {', '.join(missing)}; there are {', '.join(sources)}")
    for config in options.configs:
        samples = measured_on(
            config, options.unseen, options.pairs, count=options.count, crop=options.crop
        )
        files = {row: _kept(options, config, row, source) for row, source in sources.items()}
        for row in rows:
            for seed, file in files[row].items():
                if not file.is_file():
                    scores = run_row(sources[row], config, seed, samples, options)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(json.dumps(scores, indent=1))
        found = {row: _read(those) for row, those in files.items()}
        shown = table({row: scores for row, scores in found.items() if scores})
        print(f"\n{config}.yaml\n\n{shown}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
