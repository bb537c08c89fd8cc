"""Files that somebody else wrote: regular ones alone, YAML and JSON of bounded size and depth."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

_BYTES = 4 << 20
_DEPTH, _NODES, _TEXT = 64, 400_000, 1 << 14  # of a YAML file; text counts in characters


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise OSError, which names the path, unless it is a regular file.

    A pipe would be waited for without end, and a device read without end.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is a pipe or a device, not a regular file", os.fspath(path))


def _read_text(path: str | os.PathLike[str]) -> str:
    """Raises OSError, or ValueError for what is not UTF-8 or larger than 4 MiB."""
    check_regular(path)
    file = Path(path)
    if file.stat().st_size > _BYTES:
        raise ValueError(f"it is larger than {_BYTES >> 20} MiB")
    return file.read_text(encoding="utf-8")


class BoundedLoader(yaml.SafeLoader):
    """Of a YAML file: refuses what is nested deeply, or grows when its aliases are followed.

    Raises:
        OSError: the file cannot be read, or is no regular file.
        yaml.YAMLError: it is not UTF-8, or larger than 4 MiB.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            super().__init__(_read_text(path))
        except ValueError as error:
            raise yaml.YAMLError(str(error)) from error
        self.name = Path(path).name  # in messages
        self._depth, self._nodes, self._sizes = 0, 0, dict[int, int]()

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark, before = self.peek_event().start_mark, self._nodes
        alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > _DEPTH:
            raise yaml.composer.ComposerError(None, None, "it is nested too deeply", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        # An alias of what is still being read has no size yet: it contains itself.
        self._nodes += self._sizes.get(id(node), _NODES) if alias else 1
        self._sizes.setdefault(id(node), self._nodes - before)
        long = isinstance(node, yaml.ScalarNode) and len(node.value) > _TEXT
        if long or self._nodes > _NODES:
            raise yaml.composer.ComposerError(None, None, "it holds too much", mark)
        return node


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The plain values in a YAML file.

    Raises:
        OSError: it cannot be read, or is no regular file.
        yaml.YAMLError: it is not YAML in UTF-8, larger than 4 MiB or nested more than 64 deep.
    """
    try:
        return BoundedLoader(path).get_single_data()
    except (OSError, yaml.YAMLError):
        raise
    except Exception as error:  # PyYAML passes on what the constructor of a date or a number raises
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """The plain values in a JSON file.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is not JSON in UTF-8, larger than 4 MiB, nested too deeply, or says a thing
            twice.
    """
    try:
        return json.loads(_read_text(path), object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r:.40} stands twice in it")
    return found
