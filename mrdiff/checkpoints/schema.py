"""What a description may hold: plain values of bounded size, each of its kind at its place.

Checked before a class is looked up or anything is built; :mod:`mrdiff.checkpoints.bounds` bounds
what is built of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

from mrdiff.checkpoints.description import CONFIG_KEY, FORMAT, CheckpointError
from mrdiff.diffusion.parameterization import ParameterizationName

_DEPTH, _VALUES, _TEXT, _WHOLE = 32, 1_000_000, 1 << 14, 1 << 63  # text counts in characters
_LARGEST = 1e6  # data_std, in image units
_OBJECT = {"class_path", "init_args", "dict_kwargs"}


def check_plain(value: Any) -> None:
    """Raise ValueError for what a checkpoint could not be read with again.

    Plain values are str, int, float, bool, None, and lists and dicts of them, no subclasses;
    nested at most 32 deep, a million at most.
    """
    _check_plain(value, 0, [0])


def _check_plain(value: Any, depth: int, count: list[int]) -> None:
    count[0] += 1
    if depth > _DEPTH or count[0] > _VALUES:
        raise ValueError("checkpoint settings are nested too deeply, or too many")
    if isinstance(value, (dict, list)):
        for item in (*value.keys(), *value.values()) if isinstance(value, dict) else value:
            _check_plain(item, depth + 1, count)
    elif type(value) not in (str, int, float, bool, type(None)):
        kind = f"{type(value).__module__}.{type(value).__name__}"
        raise ValueError(f"checkpoint settings are plain values, got {kind} {value!r:.80}")
    elif isinstance(value, str) and len(value) > _TEXT:
        raise ValueError(f"checkpoint settings are short, got a text of {len(value)} characters")
    elif isinstance(value, int) and abs(value) >= _WHOLE:
        raise ValueError("checkpoint settings are numbers of 64 bits, got a larger one")


def _is_buildable(value: Any) -> bool:
    """Whether its numbers are finite, and every ``class_path`` in it, however deep, an object's."""
    if isinstance(value, dict):
        sound = "class_path" not in value or _is_object(value)
        return sound and all(map(_is_buildable, value.values()))
    if isinstance(value, list):
        return all(map(_is_buildable, value))
    return not isinstance(value, float) or math.isfinite(value)


def _is_object(spec: Any) -> bool:
    if not isinstance(spec, dict) or not isinstance(spec.get("class_path"), str):
        return False
    arguments = [spec.get(key) or {} for key in ("init_args", "dict_kwargs")]
    named = all(isinstance(a, dict) and all(isinstance(k, str) for k in a) for a in arguments)
    return named and spec.keys() <= _OBJECT


def _is_number(value: Any, most: float) -> bool:
    return type(value) in (int, float) and 0 < value <= most


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) in (int, float) for number in value)


def is_sampler(sampler: Any) -> bool:
    """Whether a setting is of the kinds that a sampler takes, which itself knows their bounds.

    Its numbers are finite, but for an ``eta`` that keeps nothing of the state.
    """
    if not isinstance(sampler, dict):
        return False
    if not _is_buildable({k: v for k, v in sampler.items() if k != "eta" or v != math.inf}):
        return False
    grid = sampler.get("grid", "")
    given = [sampler.get(key, False) for key in ("corrector", "average")]
    sound = isinstance(grid, str) or _is_numbers(grid)
    if isinstance(grid, dict):
        sound = all(type(nfe) is int and _is_numbers(times) for nfe, times in grid.items())
    return sound and all(isinstance(flag, bool) for flag in given)


def _is_lora(lora: Any) -> bool:
    if not isinstance(lora, dict) or lora.keys() != {"rank", "alpha", "targets"}:
        return False
    targets = lora["targets"]
    sizes = type(lora["rank"]) is int and lora["rank"] > 0 and _is_number(lora["alpha"], math.inf)
    return sizes and (targets is None or _is_names(targets))


def is_ranges(ranges: Any) -> bool:
    """Whether a setting has pairs of finite numbers by names."""
    if not isinstance(ranges, dict) or not _is_buildable(ranges):
        return False
    pairs = all(_is_numbers(pair) and len(pair) == 2 for pair in ranges.values())
    return pairs and _is_names(list(ranges))


def _meaning(model: Mapping[str, Any]) -> dict[str, bool]:
    """Whether all is sound that a denoiser is built of."""
    network = model.get("network")
    return {
        "network": _is_object(network) and _is_buildable(network),
        "process": _is_object(model.get("process")) and _is_buildable(model.get("process")),
        "parameterization": model.get("parameterization") in get_args(ParameterizationName),
        "data_std": _is_number(model.get("data_std"), _LARGEST),
    }


def _is_start(start: Any) -> bool:
    """Whether it describes a denoiser that has no start itself."""
    return isinstance(start, dict) and start.get("start") is None and all(_meaning(start).values())


def check_description(config: Any) -> None:
    """Raise CheckpointError unless this is a description with all that a model is built of."""
    if not isinstance(config, Mapping):
        raise CheckpointError(f"not written by mrdiff: there is no {CONFIG_KEY!r} entry")
    found = config.get("format")
    if type(found) is not int or found != FORMAT:
        which = f"this is checkpoint format {found!s:.20}"
        raise CheckpointError(f"{which}; this version reads {FORMAT}")
    try:
        check_plain(config)
    except ValueError as error:
        raise CheckpointError(f"its description is damaged: {error}") from error
    model = config.get("model")
    if not isinstance(model, Mapping):
        raise CheckpointError("its description has no model")
    lora, start = model.get("lora"), model.get("start")
    sound = {
        **_meaning(model),
        "lora": lora is None or _is_lora(lora),
        "freeze": _is_names(model.get("freeze") or []),
        "start": start is None or _is_start(start),
    }
    for key, right in sound.items():
        if not right:
            raise CheckpointError(f"model.{key} in its description is missing or damaged")
