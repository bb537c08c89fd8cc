"""What the choices of the recipes bring in the same few minutes.

    python -m benchmarks.recipe optimizer|rate|loss|precision
        [--minutes 3] [--configs dejpeg deblur]

Trains each recipe by the real command with what it chose and with the alternative, from the same
seed with the same data, for the same time; measures the recipe's validation photos at NFE 5 with
the sampler `fidelity`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.evaluation import own_photos, quality, train_for
from mrdiff.checkpoints.reading import load_model
from mrdiff.metrics import LPIPS

_RATE = "--model.optimizer.lr"
_ADAMW = {"lr": "1.5e-3", "betas": "[0.9, 0.99]", "weight_decay": "0.0"}  # its best known rate
_AS_ADAMW = (
    *("--model.optimizer", "torch.optim.AdamW"),
    *(part for key, value in _ADAMW.items() for part in (f"--model.optimizer.{key}", value)),
)
# First what the recipes say.
CHOICES: dict[str, dict[str, Sequence[str]]] = {
    "optimizer": {"Muon": (), "AdamW": _AS_ADAMW},
    "rate": {"0.004": (_RATE, "4.0e-3"), "0.002": (_RATE, "2.0e-3"), "0.01": (_RATE, "0.01")},
    "loss": {
        "balance 0.5": (),
        "balance 0": ("--model.loss.init_args.balance", "0"),
    },
    "precision": {
        "bf16-mixed": ("--trainer.precision", "bf16-mixed"),
        "32-true": ("--trainer.precision", "32-true"),
    },
}


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("choice", choices=CHOICES)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--configs", nargs="+", default=["dejpeg", "deblur"])
    options = parser.parse_args(given)
    lpips = LPIPS.find()
    print(f"| recipe | {options.choice} | PSNR | gain | SSIM | LPIPS | trained |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for config in options.configs:
            samples = own_photos(f"{config}.yaml")
            for name, flags in CHOICES[options.choice].items():
                arguments = ["--config", f"{config}.yaml", *flags]
                run = train_for(options.minutes, arguments, Path(scratch) / config / name)
                result = quality(load_model(run.checkpoint, "cpu"), samples, lpips=lpips)
                print(f"| {config} | {name} | {result.row()} | {run.spent} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
