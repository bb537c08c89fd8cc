"""Keep some weights of a network as they are: names as shell patterns, ``down_stages.0.*``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn


def _closest(pattern: str, names: Sequence[str]) -> str:
    """`` (did you mean …?)`` with the nearest names, whole branches included; or nothing."""
    parts = [name.split(".") for name in names]
    branches = {".".join([*part[:end], "*"]) for part in parts for end in range(1, len(part))}
    close = difflib.get_close_matches(pattern, [*names, *sorted(branches)], n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def match_names(patterns: Iterable[str], names: Sequence[str], *, key: str) -> set[str]:
    """The names that a pattern matches, case and all; ``*`` also goes over dots.

    Raises:
        ValueError: a pattern matches nothing; names the option ``key`` and the closest name.
    """
    found: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if fnmatchcase(name, pattern)}
        if not matched:
            raise ValueError(f"{key}: nothing is named {pattern}{_closest(pattern, names)}")
        found |= matched
    return found


def freeze(network: nn.Module, patterns: Iterable[str]) -> None:
    """Take the parameters that match out of training; buffers stay as they are.

    Raises:
        ValueError: a pattern matches no parameter, or nothing is left to train.
    """
    parameters = dict(network.named_parameters())
    for name in match_names(patterns, list(parameters), key="model.freeze"):
        parameters[name].requires_grad_(False)
    if not trainable(network):
        raise ValueError("model.freeze leaves nothing to train: it matches every parameter")


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that an optimizer may change."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def tally(network: nn.Module) -> str:
    """How much of a network is trained, as a line."""
    count = sum(parameter.numel() for parameter in trainable(network))
    total = sum(parameter.numel() for parameter in network.parameters())
    return f"training {count:,} of {total:,} parameters ({count / total:.1%})"
