"""Shorten what jsonargparse and Lightning say to one line that says what to do, or to nothing."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import sysconfig
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import mrdiff
from mrdiff.cli.common.errors import did_you_mean, one_line

_LIGHTNING = str(Path(lightning.__file__).parent)
_TORCH = str(Path(torch.__file__).parent)
_HOME = Path(mrdiff.__file__).parents[1]  # of a checkout, else where packages are installed
_NOT_THE_USERS = (
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
    *(str(_HOME / name) for name in ("mrdiff", "datamodules", "callbacks", "train.py")),
    "<",
)
_LOGGERS = ("wandb", "mlflow")  # whose errors speak to the user
_LIMIT = 300  # characters: beyond that jsonargparse is listing types, not helping


def _unknown_flag(keys: list[str], *, flag: str) -> str:
    flag = flag.split("=")[0]
    return f"unknown option {flag}{did_you_mean(flag, ['--' + key for key in keys])}"


def _unknown_key(keys: list[str], *, key: str) -> str:
    return f"unknown key {key}{did_you_mean(key, keys)}"


def _unknown_argument(keys: list[str], *, key: str, path: str, name: str) -> str:
    return f"{key}: {path} takes no {name}{did_you_mean(name, _parameters(path))}"


def _missing(keys: list[str], *, key: str) -> str:
    if key == "model.network":
        return "no model.network: name one in a config, or start from a model with --init_from FILE"
    return f"{key} is required"


def _incomplete(keys: list[str], *, key: str, path: str, names: str) -> str:
    hint = "; name one with --data.degradation or in a recipe" if names == "degradation" else ""
    return f"{key}: {path} needs {names}{hint}"


def _refused(keys: list[str], *, key: str | None, why: str) -> str:
    return f"{key}: {why}" if key else why


_KEY = r'Parser key "(?P<key>[^"]+)": .*?'
_CLASS = r"Problem with given class_path '(?P<path>[^']+)': "
# What jsonargparse says, and the line to say instead: a text, or what makes one.
_REWRITES: tuple[tuple[str, str | Callable[..., str]], ...] = (
    (r"[Uu]nrecognized arguments: (?P<flag>\S+)", _unknown_flag),
    (r"does not accept option '(?P<key>[^']+)'", _unknown_key),
    (_KEY + _CLASS + r"Option '(?P<name>[^']+)' is not accepted", _unknown_argument),
    (
        _KEY + _CLASS + r"(?P<why>(?:No module named|module) .*?)(?: - |$)",
        "{key}: cannot import {path}: {why}",
    ),
    (
        _KEY + r"Expected a typing\.Literal\[(?P<choices>[^\]]+)\]\. Got value: (?P<value>.*)",
        "{key}: expected one of {choices}, not {value}",
    ),
    (_KEY + _CLASS + r"the following arguments are required: (?P<names>[\w, ]+?) - ", _incomplete),
    (
        r"(?:Requirement|Module not found:|No module named) '(?P<package>wandb|mlflow)\b",
        "trainer.logger needs {package}: pip install 'mrdiff[loggers]'",
    ),
    (
        r"got unsupported URI '(?P<uri>sqlite:[^']*)'",
        "trainer.logger: {uri} needs SQLAlchemy and Alembic: pip install 'mrdiff[loggers]'",
    ),
    (
        _KEY + r"Expected a dot import path string: (?P<value>\S+)",
        "{key}: {value} names no class: give its import path, such as mine.{value}",
    ),
    (
        r'(?:Parser key "(?P<key>[^"]+)": )?[^"]*?Union subtypes.*?Errors: - '
        r"(?P<why>(?!Expected|Problem|Does not).+?) - Expected an? <class 'NoneType'>",
        _refused,
    ),
    (
        r"Union subtypes.*?Problem with given class_path '(?P<path>[^']+)': (?P<why>.+?) - ",
        "{path}: {why}",
    ),
    (r"arguments are required: (?:\w+\.)?(?P<key>(?:model|data)[.\w]*)", _missing),
    (
        _KEY + r"Expected an? <class '(?P<type>[^']+)'>\. Got value: (?P<value>.*)",
        "{key}: expected {type}, not {value}",
    ),
    (
        _KEY + r"Union subtypes.*?Literal\[(?P<choices>[^\]]+)\], <class '(?P<type>[^']+)'>"
        r".*Given value: (?P<value>.*)",
        "{key}: expected {type} or {choices}, not {value}",
    ),
    (
        _KEY + r"Union subtypes.*?an? <class '(?P<type>[^']+)'>.*Given value: (?P<value>.*)",
        "{key}: expected {type}, not {value}",
    ),
)


def _parameters(path: str) -> list[str]:
    """The parameter names of the class at an import path; empty when it cannot be imported."""
    module, _, name = path.rpartition(".")
    try:
        return list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    except (ImportError, AttributeError, ValueError, TypeError):
        return []


def explain(error: BaseException, keys: list[str]) -> str:
    """The line for what jsonargparse raised, whose parser knows the dotted ``keys``."""
    message = one_line(error)
    for pattern, rewrite in _REWRITES:
        match = re.search(pattern, message)
        if match:
            parts = match.groupdict()
            if isinstance(rewrite, str):
                message = rewrite.format(**parts)
            else:
                message = rewrite(keys, **parts)
            break
    return message if len(message) <= _LIMIT else message[: _LIMIT - 1].rstrip() + "…"


def explain_failure(error: BaseException) -> str | None:
    """The line for what a logger raised; or Lightning or a class of the user's, with the place.

    None for anything else, whose traceback is needed.
    """
    if type(error).__module__.partition(".")[0] in _LOGGERS:
        return f"trainer.logger: {one_line(error)}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_USERS)]
    last = [frame for frame in frames if not frame.filename.startswith(_TORCH)][-1]
    if not own and not last.filename.startswith(_LIGHTNING):
        return None
    message = one_line(error)
    if not own and isinstance(error, MisconfigurationException):
        return message
    if len(message) > _LIMIT:
        message = message[: _LIMIT - 1].rstrip() + "…"
    place = own[-1] if own else last
    file = place.filename if own else f"lightning's {Path(place.filename).name}"
    return f"{type(error).__name__}: {message} ({file}, line {place.lineno}, in {place.name})"


def quieten() -> None:
    """Drop Lightning's advertisements and warnings that are its own affair."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(lambda record: "Tip:" not in record.getMessage())
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    # They were put aside before.
    warnings.filterwarnings("ignore", message=".*Previous log files in this directory will be del")
    # Megabytes of weights, which bf16-mixed keeps in float32 indeed.
    warnings.filterwarnings("ignore", message="Precision bf16-mixed is not supported by the model")
    # They do without the @; docs/training.md says so.
    warnings.filterwarnings("ignore", message="MLFlow only allows")
    # A model that the path starts from.
    warnings.filterwarnings("ignore", message="Found \\d+ module\\(s\\) in eval mode")
    # The clock is no part of what is tested; who tests or goes on has a folder of its own.
    warnings.filterwarnings("ignore", message="(?s)Be aware that when using `ckpt_path`.*'Budget")
    warnings.filterwarnings("ignore", message="The dirpath has changed from")
    # Every so many steps there is a log, however few there are in an epoch.
    warnings.filterwarnings("ignore", message="The number of training batches \\(\\d+\\) is sm")
    # Ours are the command line's arguments, with the subcommand and the paths filled in.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
