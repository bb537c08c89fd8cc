"""Where a run starts from: ``--init_from`` and ``--ckpt_path``, and what the checkpoint decides.

What makes the weights usable, the network first of all, is taken from the checkpoint as if it
stood in a config before all others: a config or a flag wins.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Optional, Union

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from mrdiff.checkpoints.description import (
    ALLOWED_PACKAGES,
    CheckpointError,
    class_paths,
    find_class,
)
from mrdiff.checkpoints.reading import Checkpoint, build_network, merge_adapters
from mrdiff.cli.common.errors import CommandError
from mrdiff.cli.train.arguments import read_yaml

# Let a configuration that leaves them to a checkpoint be parsed, to find the run's folder in it.
_PAIRS = {"class_path": "datamodules.PairedFolder", "init_args": {"lq": "", "gt": ""}}
STAND_IN = json.dumps({"model": {"network": "mrdiff.networks.UNet"}, "data": {"train": _PAIRS}})

_OURS = ("datamodules",)  # beside mrdiff
_SETS = {"validate": "val", "test": "test"}  # what is used instead of data.train
_MEANING = ("parameterization", "data_std")
_TUNING = ("freeze", "lora")
# Each a flag that ends a run, as ``minutes`` does.
_ENDS = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_time")


@dataclass(frozen=True)
class Start:
    """What the arguments say of the start."""

    init_from: str | None  # the old weights of a new run
    ckpt_path: str | None  # what is resumed or evaluated
    packages: tuple[str, ...]  # whose classes a checkpoint may name
    # (package, name) of the classes in configs and flags, whatever module they are taken from
    classes: frozenset[tuple[str, str]]
    has_data: bool  # whether they say what is learnt from, or evaluated on


def add_options(parser: LightningArgumentParser) -> None:
    """Add the options that are neither of the model, nor of the data, nor of the trainer."""
    names = Optional[Union[str, list[str]]]  # noqa: UP007, UP045  (a runtime value)
    add = partial(parser.add_argument, default=None)
    add(
        "--base",
        type=names,
        help="In a config file: the config, or the list of them, that it builds upon.",
    )
    add(
        "--minutes",
        type=Optional[float],  # noqa: UP045  (as above; mypy refuses `float | None` here)
        help="End training, and take the learning rate to its end, after so many minutes, whatever "
        "the number of steps; null for trainer.max_steps.",
    )
    add(
        "--init_from",
        type=Optional[str],  # noqa: UP045  (as above; mypy refuses `str | None` here)
        help="Start a new run from what fits of the weights of this checkpoint or exported folder, "
        "whose network, process and parameterization are the defaults (fit alone).",
    )
    add(
        "--init_mismatch",
        type=bool,
        default=False,
        help="Take the weights of --init_from even if they were trained with another process, "
        "parameterization or data_std.",
    )
    add(
        "--allow_package",
        type=names,
        help="A package besides mrdiff whose classes a checkpoint may name.",
    )


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Flags without dashes, each with its value or what follows it."""
    for argument, after in pairwise([*arguments, ""]):
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            yield name[2:], value if equals else after


def _strings(content: Any) -> Iterator[str]:
    if isinstance(content, (Mapping, list)):
        for value in content.values() if isinstance(content, Mapping) else content:
            yield from _strings(value)
    elif isinstance(content, str):
        yield content


def _class(path: str) -> tuple[str, str]:
    return path.partition(".")[0], path.rpartition(".")[2]


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _has_data(
    command: str, flags: Sequence[tuple[str, str]], files: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether the class of a set is named, and not only options of one in a checkpoint.

    Raises:
        CommandError: a folder or a degradation is given, of which nothing would be made.
    """
    sections = [content.get("data") or {} for content in files]
    roles = ("train", _SETS.get(command, "train"))
    if any(_names_class(role, flags, sections) for role in roles):
        return True
    keys = {name.split(".")[1] for name, _ in flags if name.startswith("data.")}.union(*sections)
    for key, config in (("root", "paired.yaml"), ("degradation", "photos.yaml")):
        if key in keys and not _names_class("val", flags, sections):
            cure = f"name data.train, too, such as by --config {config}"
            raise CommandError(f"data.{key} alone changes nothing: {cure}", status=2)
    return False


def _names_class(
    role: str, flags: Sequence[tuple[str, str]], sections: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether flags or ``data`` sections say of which class a set is."""
    given = [section.get(role) for section in sections]
    classes = [g.get("class_path") if isinstance(g, Mapping) else g for g in given]
    names = ("data", f"data.{role}", f"data.{role}.class_path")
    return any(classes) or any(name in names for name, _ in flags)


def find_start(arguments: Sequence[str]) -> Start:
    """Look the start up in arguments, the subcommand first, that have not been parsed yet.

    A flag wins over a file, and what a file says that a flag rules out does not count: the saved
    configuration of a fine-tuned run can be resumed and evaluated.

    Raises:
        CommandError: both, none where one is needed, or one where it does not belong.
    """
    command = arguments[0]
    flags = list(_flags(arguments))
    files = [read_yaml(Path(value)) for name, value in flags if name == "config"]
    given = {
        name: None if value == "null" else value
        for name, value in flags
        if name in ("init_from", "ckpt_path")
    }
    if command != "fit" and given.get("init_from"):
        raise CommandError(f"--init_from belongs to fit, not to {command}", status=2)
    if not given:
        keys = ("init_from", "ckpt_path") if command == "fit" else ("ckpt_path",)
        given = {k: str(content[k]) for content in files for k in keys if content.get(k)}
    if given.get("init_from") and given.get("ckpt_path"):
        message = "--init_from starts a new run and --ckpt_path resumes one: give one of them"
        raise CommandError(message, status=2)
    if command != "fit" and not given.get("ckpt_path") and not {"--help", "-h"} & {*arguments}:
        raise CommandError(f"{command} needs --ckpt_path last or --ckpt_path FILE", status=2)
    packages = [value for name, value in flags if name == "allow_package"]
    packages += [name for content in files for name in _as_list(content.get("allow_package"))]
    return Start(
        init_from=given.get("init_from"),
        ckpt_path=given.get("ckpt_path"),
        packages=tuple(packages),
        classes=frozenset(map(_class, [*_strings(files), *(value for _, value in flags)])),
        has_data=_has_data(command, flags, files),
    )


def architecture(start: Start, checkpoint: Checkpoint) -> str:
    """A config, as text, of what a checkpoint's weights belong to.

    A resumed run also goes on with what it froze and adapted. A run that does not say what it
    learns from does so from what the checkpoint did.

    Raises:
        CheckpointError: one that names a class of a package that is neither allowed nor in the
            run's own configuration, one whose network is none of its weights', one with
            interpolations, or one without the data that is to be learnt from.
    """
    model, data = checkpoint.config["model"], checkpoint.config.get("data")
    parts = [model["network"], model["process"], *([] if start.has_data else [data])]
    named = class_paths(parts)
    try:
        for class_path in named:
            if _class(class_path) not in start.classes:  # else the user has it imported anyway
                find_class(class_path, object, allow=(*_OURS, *start.packages))
        _check_texts(parts, (*_OURS, *start.packages))
        # The command line builds it without bounds; what a flag changes is the user's affair.
        plain = merge_adapters(checkpoint)
        build_network(plain, allow=[name.partition(".")[0] for name in named])
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error
    trained_on = data.get("train") if isinstance(data, Mapping) else None
    if start.init_from and not start.has_data and trained_on is None:
        cure = "name data.train, such as by --config paired.yaml --data.root ROOT"
        raise CheckpointError(f"{checkpoint.path} does not say what it was trained on: {cure}")
    keys = _MEANING if start.ckpt_path is None else (*_MEANING, *_TUNING)
    taken = {key: model[key] for key in keys if model.get(key) is not None}
    found = {"model": {"network": model["network"], "process": model["process"], **taken}}
    return json.dumps(found if start.has_data or not data else {**found, "data": data})


def _check_texts(value: Any, allow: Sequence[str]) -> None:
    """Refuse texts that the command line would resolve, or take for a class and import it.

    Raises:
        CheckpointError: names the text.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key != "class_path":
                _check_text(key, allow)
                _check_texts(item, allow)
    elif isinstance(value, list):
        for item in value:
            _check_texts(item, allow)
    elif isinstance(value, str):
        _check_text(value, allow)
        if os.path.isfile(os.path.expanduser(value)):
            raise CheckpointError(f"{value!r:.60} in its description could be read as a config")


def _check_text(text: str, allow: Sequence[str]) -> None:
    try:
        meant = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        meant = None
    if isinstance(meant, (dict, list)):
        raise CheckpointError(f"{text!r:.60} in its description could be read as a config")
    if isinstance(meant, str) and meant != text:  # escapes hide nothing
        _check_text(meant, allow)
    if "${" in text or "class_path" in text:
        raise CheckpointError(f"there is a {text!r:.60} in its description")
    package, *rest = text.split(".")
    dotted = bool(rest) and all(map(str.isidentifier, (package, *rest)))
    foreign = dotted and package not in (*ALLOWED_PACKAGES, *allow)
    if foreign and importlib.util.find_spec(package) is not None:
        raise CheckpointError(f"{text!r:.60} in its description could import {package}")


def refuse_two_ends(arguments: Sequence[str], section: Mapping[str, Any]) -> None:
    """Raise CommandError for ``minutes`` beside another end that was meant for this run."""
    given = [name for name, _ in _flags(arguments) if name in _ENDS]
    given += ["trainer.max_time"] if section["trainer"]["max_time"] is not None else []
    if section["minutes"] is not None and given:
        ends = f"minutes ({section['minutes']:g}) and {given[0]} both end the run"
        raise CommandError(f"{ends}: leave one out, or give --minutes null", status=2)


def without_printing(arguments: Sequence[str]) -> list[str]:
    """The arguments without those that print and stop."""
    return [a for a in arguments if not a.startswith("--print_config")]
