"""``mrdiff export --to``, with torch: load the model and its sampler, and write its programs."""

from __future__ import annotations

import argparse

from rich.console import Console

from mrdiff.acceleration.exporting import write_programs
from mrdiff.checkpoints.places import name_of_model
from mrdiff.cli.common.errors import CommandError
from mrdiff.restoration.restorer import Restorer
from mrdiff.tuning.checkpoint_sampler import describe_sampler

__all__ = ["run_programs"]


def run_programs(options: argparse.Namespace) -> int:
    """Run the command with the flags of :mod:`mrdiff.cli.export.command`."""
    try:
        restorer = Restorer.from_checkpoint(
            options.checkpoint,
            device="cpu",
            sampler=options.sampler,
            nfe=options.nfe,
            precision="fp32",
            allow=options.allow_package,
        )
    except ValueError as error:
        raise CommandError(str(error), status=2) from error
    sampler = restorer.sampler
    about = {"nfe": sampler.nfe, "sampler": describe_sampler(sampler)}
    with Console(stderr=True).status("exporting: a minute or more"):
        files = write_programs(restorer.denoiser, sampler, options.output, options.to, about=about)
    print(f"exported {name_of_model(options.checkpoint)} -> {options.output}: {', '.join(files)}")
    return 0
