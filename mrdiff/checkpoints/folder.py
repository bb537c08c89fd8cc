"""The files of a model's folder: weights, and a description in YAML or the same in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mrdiff.system.untrusted import read_json, read_yaml

WEIGHTS, START, CARD = "model.safetensors", "start.safetensors", "README.md"
YAML, JSON = "config.yaml", "config.json"
FILES = (YAML, JSON, WEIGHTS, START, CARD)  # all there are


def description_file(model: Path) -> Path:
    """A folder's ``config.yaml``, or ``config.json`` if it has that one alone; a file itself."""
    if not model.is_dir():
        return model
    plain, other = model / YAML, model / JSON
    return other if other.exists() and not plain.exists() else plain


def read_config(file: Path) -> Any:
    """The plain values in a description.

    Raises:
        OSError: it cannot be read, or is no regular file.
        yaml.YAMLError, ValueError: as of :mod:`mrdiff.system.untrusted`.
    """
    return read_json(file) if file.name == JSON else read_yaml(file)


def config_text(config: Mapping[str, Any], name: str) -> str:
    """What a file of this name has to hold to be read as ``config`` again.

    Raises:
        ValueError: it is JSON, which has no infinite numbers, and texts alone for keys.
    """
    if name == YAML:
        return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    text = json.dumps(config, indent=2, allow_nan=False)
    if json.loads(text) != config:
        raise ValueError("JSON has no keys but texts")
    return text + "\n"


def hub_name(config: Mapping[str, Any]) -> str:
    """``config.json``, which the Hub looks for first; ``config.yaml`` for what JSON cannot hold."""
    try:
        config_text(config, JSON)
    except ValueError:
        return YAML
    return JSON
