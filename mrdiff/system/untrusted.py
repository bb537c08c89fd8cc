"""Files that somebody else wrote: regular ones alone, and YAML of bounded size and depth."""

from __future__ import annotations

import errno
import os
import stat
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


class BoundedLoader(yaml.SafeLoader):
    """Of a YAML file: refuses what is nested deeply, or grows when its aliases are followed.

    Raises:
        OSError: the file cannot be read, or is no regular file.
        yaml.YAMLError: it is not UTF-8, or larger than 4 MiB.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        check_regular(path)
        file = Path(path)
        if file.stat().st_size > _BYTES:
            raise yaml.YAMLError(f"it is larger than {_BYTES >> 20} MiB")
        try:
            super().__init__(file.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise yaml.YAMLError(str(error)) from error
        self.name = file.name  # in messages
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
