"""What the official weights were trained with: from flags, or the YAML file of the official code.

Nothing is assumed: with another schedule the weights restore badly without a word.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.common.parser import bounded, one_of, whole
from mrdiff.system.names import OFFICIAL_PATHS
from mrdiff.system.untrusted import read_yaml

__all__ = ["Trained", "add_flags", "check_network", "read_yml", "trained_with"]

_ABOVE_0 = "must be above 0, in grey levels of 255 from 1 on"
_sigma = partial(bounded, least=1e-6, most=1e4, rule=_ABOVE_0)
_steps = partial(whole, least=1, most=100_000, rule="must be at least 1")
_eps = partial(bounded, least=1e-12, most=1 - 1e-6, rule="must lie between 0 and 1")
_gamma = partial(bounded, least=1e-12, most=1e12, rule="must be above 0, at most 1e12")
_schedule = one_of("schedule", ("cosine", "linear", "constant"))
_path = one_of("path", OFFICIAL_PATHS)

# Flag: (key of the YAML's sde section, type, help).
_FIELDS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "max_sigma": ("max_sigma", _sigma, "grey levels of 255 from 1 on, else of images in [0, 1]"),
    "steps": ("T", _steps, "the official T"),
    "schedule": ("schedule", _schedule, "cosine, linear or constant"),
    "eps": ("eps", _eps, "share of the clean residual left at T, before it is made a bridge"),
    "gamma": ("gamma", _gamma, "the price of missing the degraded image, of --path unidb alone"),
}

# What only the files of some paths have in their sde section. lambda_square is their max_sigma:
# despite its name a standard deviation.
_KEYS_OF = {"gamma": ("unidb",), "lambda_square": ("goub", "unidb")}

# Keys of the YAML's network_G.setting and the arguments of our networks.
_SETTINGS = {"in_nc": "channels", "out_nc": "channels", "img_channel": "channels"}
_SETTINGS |= {"nf": "width", "width": "width", "depth": "depth", "ch_mult": "multipliers"}
_SETTINGS |= {"context_dim": "context_width", "use_degra_context": "text"}
_SETTINGS |= {"use_image_context": "image", "enc_blk_nums": "encoder"}
_SETTINGS |= {"middle_blk_num": "middle", "dec_blk_nums": "decoder", "scale": "half_size"}


@dataclass(frozen=True)
class Trained:
    """What the weights were trained with, and for each field where that stands."""

    path: str  # of OFFICIAL_PATHS
    max_sigma: float  # as the official code takes it
    steps: int
    schedule: str
    eps: float  # alpha at T
    gamma: float | None  # of UniDB alone
    sources: dict[str, str]  # a flag or the name of a file, by field

    @property
    def sigma_max(self) -> float:
        """In image units; the official code, too, takes what is 1 or more for grey levels."""
        return self.max_sigma / 255 if self.max_sigma >= 1 else self.max_sigma


def add_flags(parser: argparse.ArgumentParser) -> None:
    paths = f"what they were trained on: {', '.join(OFFICIAL_PATHS)}; default mr"
    parser.add_argument("--path", type=_path, metavar="NAME", help=paths)
    for flag, (_, kind, text) in _FIELDS.items():
        parser.add_argument(f"--{flag}", type=kind, metavar="VALUE", help=text)


def read_yml(path: Path) -> Mapping[str, Any]:
    """The content of an official YAML file; CommandError if it is none."""
    try:
        content = read_yaml(path)
    except yaml.YAMLError as error:
        raise CommandError(f"{path} is not a YAML file: {error}") from error
    if not isinstance(content, Mapping):
        raise CommandError(f"{path} is not a YAML file of the official code: it has no sections")
    return content


def _section(content: Mapping[str, Any], name: str, path: Path | None) -> Mapping[str, Any]:
    section = content.get(name)
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise CommandError(f"{path}: {name} is not a section, but {section}")
    return section


def _path_of(options: argparse.Namespace, section: Mapping[str, Any]) -> str:
    """Of OFFICIAL_PATHS; CommandError if the flags or the file have what only another has."""
    path: str = options.path or "mr"
    if options.gamma is not None and path != "unidb":
        raise CommandError("--gamma goes with --path unidb alone", status=2)
    for key, paths in _KEYS_OF.items():
        if key in section and path not in paths:
            ways = " or ".join(f"--path {name}" for name in paths)
            raise CommandError(
                f"{options.yml} has sde.{key}, so it is of another path than {path}: give {ways}"
            )
    return path


def trained_with(options: argparse.Namespace, content: Mapping[str, Any]) -> Trained:
    """The fields from flags, and what they leave open from the YAML file.

    Raises:
        CommandError: the file has a wrong value, or neither says what a field is.
    """
    section = _section(content, "sde", options.yml)
    path = _path_of(options, section)
    values: dict[str, Any] = {"path": path, "gamma": None}
    sources = {"path": "--path" if options.path else "the default"}
    fields = [flag for flag in _FIELDS if flag != "gamma" or path == "unidb"]
    for flag in fields:
        key, kind, _ = _FIELDS[flag]
        if key == "max_sigma" and path != "mr":
            key = "lambda_square"
        if getattr(options, flag) is not None:
            values[flag], sources[flag] = getattr(options, flag), f"--{flag}"
        elif section.get(key) is not None:
            try:
                values[flag] = kind(str(section[key]))
            except argparse.ArgumentTypeError as error:
                raise CommandError(f"{options.yml}: sde.{key}: {error}") from error
            sources[flag] = options.yml.name
    missing = [f"--{flag}" for flag in fields if flag not in sources]
    if missing:
        file = f"{options.yml} does not say it" if options.yml else "or the official file as --yml"
        raise CommandError(
            f"what were these weights trained with? give {' '.join(missing)} ({file})", status=2
        )
    return Trained(**values, sources=sources)


def check_network(content: Mapping[str, Any], arguments: Mapping[str, Any], path: Path) -> None:
    """Raise CommandError if ``network_G.setting`` of a YAML file contradicts the weights.

    Args:
        content: of the YAML file; it need not describe a network.
        arguments: those of our network, as the weights show them.
        path: of the YAML file.
    """
    setting = _section(_section(content, "network_G", path), "setting", path)
    for key, ours in _SETTINGS.items():
        found, said = arguments.get(ours), setting.get(key)
        if key == "scale":  # the official code knows 0.5 and takes all else for 1
            found, said = 0.5 if found else 1, 0.5 if said == 0.5 else 1
        # Weights without any context do not show how wide it would be.
        unknown = key == "context_dim" and found is None
        if key in setting and not unknown and (said or None) != (found or None):
            shown = "have none" if found is None else f"have {found}"
            raise CommandError(
                f"{path}: network_G.setting.{key} is {said}, but the weights {shown}: "
                "is it the file of another network?"
            )
