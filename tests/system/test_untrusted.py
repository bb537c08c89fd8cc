"""YAML from anybody: what is sound is read as ever, what would not end is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mrdiff.system.untrusted import check_regular, read_yaml

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=PLAIN)
def test_plain_values_are_read_as_written(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text(yaml.safe_dump([value, value]), encoding="utf-8")  # the second as an alias
    assert read_yaml(path) == [value, value]


DOUBLED = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
MERGED = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 60)]
HOSTILE = {
    "lists": "[" * 20_000,
    "closed lists": "[" * 20_000 + "]" * 20_000,
    "mappings": "{a: " * 20_000,
    "blocks": "- " * 20_000,
    "keys": "? " * 20_000,
    "doubled": "\n".join(DOUBLED),
    "merged": "\n".join(MERGED),
    "itself": "&a [*a]",
    "large": "a: " + "x" * (5 << 20),
    "minutes": "a: 1" + ":00" * 20_000,
    "digits": "a: " + "9" * 5000,
    "date": "a: 2001-13-45",
    "no date": "!!timestamp x",
    "no truth": "!!bool x",
    "object": "!!python/object/apply:os.system [ls]",
    "control": "a: \0",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_would_not_end_is_no_yaml(text: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    with pytest.raises(yaml.YAMLError) as caught:
        read_yaml(path)
    assert len(str(caught.value)) < 1000


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_regular(tmp_path / "none")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        read_yaml(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", "/dev/zero"):
            with pytest.raises(OSError, match="is a pipe or a device"):
                read_yaml(path)
