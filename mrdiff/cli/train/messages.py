"""Shorten what jsonargparse says of a wrong configuration to one line that says what to do."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable

from mrdiff.cli.common.errors import did_you_mean, one_line

__all__ = ["explain"]

_LIMIT = 300  # characters: beyond that jsonargparse is listing types, not helping

_Rewrite = tuple[str, Callable[[re.Match[str], list[str]], str]]


def _unknown_flag(match: re.Match[str], keys: list[str]) -> str:
    flag = match["flag"].split("=")[0]
    return f"unknown option {flag}{did_you_mean(flag, ['--' + key for key in keys])}"


def _unknown_key(match: re.Match[str], keys: list[str]) -> str:
    return f"unknown key {match['key']}{did_you_mean(match['key'], keys)}"


def _unknown_argument(match: re.Match[str], keys: list[str]) -> str:
    name, path = match["name"], match["path"]
    hint = did_you_mean(name, _parameters(path))
    return f"{match['key']}: {path} takes no {name}{hint}"


def _unknown_class(match: re.Match[str], keys: list[str]) -> str:
    return f"{match['key']}: cannot import {match['path']}: {match['why']}"


def _unknown_choice(match: re.Match[str], keys: list[str]) -> str:
    return f"{match['key']}: expected one of {match['choices']}, not {match['value']}"


def _missing(match: re.Match[str], keys: list[str]) -> str:
    if match["key"] == "model.network":
        return "no model.network: name one in a config, or start from a model with --init_from FILE"
    return f"{match['key']} is required"


def _wrong_type(match: re.Match[str], keys: list[str]) -> str:
    return f"{match['key']}: expected {match['type']}, not {match['value']}"


def _incomplete(match: re.Match[str], keys: list[str]) -> str:
    names = match["names"]
    hint = "; name one with --data.degradation or in a recipe" if names == "degradation" else ""
    return f"{match['key']}: {match['path']} needs {names}{hint}"


def _no_class(match: re.Match[str], keys: list[str]) -> str:
    name = match["value"]
    return f"{match['key']}: {name} names no class: give its import path, such as mine.{name}"


def _refused(match: re.Match[str], keys: list[str]) -> str:
    key = f"{match['key']}: " if match["key"] else ""
    return f"{key}{match['why']}"


_KEY = r'Parser key "(?P<key>[^"]+)": .*?'
_CLASS = r"Problem with given class_path '(?P<path>[^']+)': "
_REWRITES: tuple[_Rewrite, ...] = (
    (r"[Uu]nrecognized arguments: (?P<flag>\S+)", _unknown_flag),
    (r"does not accept option '(?P<key>[^']+)'", _unknown_key),
    (_KEY + _CLASS + r"Option '(?P<name>[^']+)' is not accepted", _unknown_argument),
    (
        _KEY + _CLASS + r"(?P<why>(?:No module named|module) .*?)(?: - |$)",
        _unknown_class,
    ),
    (
        _KEY + r"Expected a typing\.Literal\[(?P<choices>[^\]]+)\]\. Got value: (?P<value>.*)",
        _unknown_choice,
    ),
    (_KEY + _CLASS + r"the following arguments are required: (?P<names>[\w, ]+?) - ", _incomplete),
    (_KEY + r"Expected a dot import path string: (?P<value>\S+)", _no_class),
    (
        r'(?:Parser key "(?P<key>[^"]+)": )?[^"]*?Union subtypes.*?Errors: - '
        r"(?P<why>(?!Expected|Problem|Does not).+?) - Expected an? <class 'NoneType'>",
        _refused,
    ),
    (r"arguments are required: (?:\w+\.)?(?P<key>(?:model|data)[.\w]*)", _missing),
    (_KEY + r"Expected an? <class '(?P<type>[^']+)'>\. Got value: (?P<value>.*)", _wrong_type),
)


def _parameters(path: str) -> list[str]:
    """The parameter names of the class at an import path; empty when it cannot be imported."""
    module, _, name = path.rpartition(".")
    try:
        return list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    except (ImportError, AttributeError, ValueError, TypeError):
        return []


def explain(error: BaseException, keys: list[str]) -> str:
    """The line for a parser's ``error``.

    Args:
        error: what jsonargparse raised.
        keys: every key the parser knows, dotted, for a did-you-mean.
    """
    message = one_line(error)
    for pattern, rewrite in _REWRITES:
        match = re.search(pattern, message)
        if match:
            message = rewrite(match, keys)
            break
    return message if len(message) <= _LIMIT else message[: _LIMIT - 1].rstrip() + "…"
