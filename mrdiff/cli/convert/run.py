"""The work of ``mrdiff convert``: recognise, check, write, and say what was found."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from mrdiff.cli.convert.options import Trained, check_network
from mrdiff.diffusion.bridges import GOUB, UniDB
from mrdiff.diffusion.path import GaussianPath
from mrdiff.diffusion.process import MRProcess
from mrdiff.diffusion.schedule import TabulatedTheta
from mrdiff.official.architecture import Architecture, recognise
from mrdiff.official.conversion import convert
from mrdiff.official.weights import OfficialFile, read_official

__all__ = ["run_convert"]


def run_convert(options: argparse.Namespace, content: Mapping[str, Any], trained: Trained) -> int:
    """Run the command with its flags and the content of the official YAML file, if any.

    Raises:
        CommandError: the YAML file is of another network.
        CheckpointError: the file cannot be converted.
    """
    file = read_official(options.file)
    found = recognise(file, options.kind)
    check_network(content, found.arguments, options.yml)
    convert(file, found, _process(trained), options.out, steps=trained.steps)
    _report(file, found, trained)
    print(f"converted {options.file} -> {options.out}")
    _say_what_is_next(options, found)
    return 0


def _process(trained: Trained) -> GaussianPath:
    kind: Any = trained.schedule
    # Without theta[0], as in the official training.
    schedule = TabulatedTheta.irsde(kind, steps=trained.steps, eps=trained.eps, keep_first=False)
    if trained.path == "mr":
        return MRProcess(schedule, trained.sigma_max)
    start = max(trained.steps - 1, 1) / trained.steps  # the official networks have not seen T
    if trained.gamma is None:
        return GOUB(schedule, trained.sigma_max, start)
    return UniDB(schedule, trained.sigma_max, start, trained.gamma)


def _report(file: OfficialFile, found: Architecture, trained: Trained) -> None:
    millions = sum(value.numel() for value in file.weights.values()) / 1e6
    grey = f"{trained.sigma_max * 255:g} grey levels of 255"
    fields = {
        "path": trained.path,
        "max_sigma": f"{trained.sigma_max:.6g}, {grey}",
        "steps": str(trained.steps),
        "schedule": trained.schedule,
        "eps": f"{trained.eps:g}",
    }
    if trained.gamma is not None:
        fields["gamma"] = f"{trained.gamma:g}"
    print(f"network    {found}, {millions:.2f} million parameters")
    print(f"weights    {', '.join(file.wrapping) or 'a plain state dict'}")
    for name, value in fields.items():
        print(f"{name:10} {value} ({trained.sources[name]})")


def _say_what_is_next(options: argparse.Namespace, found: Architecture) -> None:
    channels = found.arguments["channels"]
    if channels != 3:
        print(f"sample.py restores RGB; for {channels} channels use mrdiff.load_model")
        return
    features = found.arguments.get("text") or found.arguments.get("image")
    more = " --daclip FILE" if features else ""
    print(f"python sample.py --checkpoint {options.out} --input photo.png --output out{more}")
    if features:
        print("--daclip FILE is DA-CLIP's CLIP; --context FILE has its features instead")
