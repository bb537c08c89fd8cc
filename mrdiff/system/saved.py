"""What ``torch.save`` wrote, or anybody pretends that it wrote, read in bounded memory."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from mrdiff.system.memory import limited
from mrdiff.system.untrusted import check_regular

_PICKLE = 8 << 20  # bytes of all that is no tensor; those of 10,000 tensors are 2 MB
_ROOM = 512 << 20  # bytes of memory beside the tensors
_LOCAL_HEADER = 30  # bytes, at least, before a record in a zip file
# Callables that torch allows and that make much of little; no checkpoint of ours has them.
_INFLATING = (b"_codecs\nencode\n", b"builtins\nbytearray\n", b"__builtin__\nbytearray\n")


class SavedFileError(ValueError):
    """Not what ``torch.save`` writes: one line without the file's name."""


def _check_records(path: Path) -> None:
    """Refuse a zip file whose records torch would not write: they grow, repeat or overlap."""
    with zipfile.ZipFile(path) as archive:
        records = sorted(archive.infolist(), key=lambda record: record.header_offset)
        if len({record.filename for record in records}) < len(records):
            raise SavedFileError("two of its records have one name")
        end = 0
        for record in records:
            stored = record.compress_type == zipfile.ZIP_STORED
            if not stored or record.compress_size != record.file_size:
                raise SavedFileError(f"its record {record.filename} is compressed")
            if record.header_offset < end:
                raise SavedFileError(f"its record {record.filename} overlaps another")
            end = record.header_offset + _LOCAL_HEADER + record.file_size
            if "/data/" in record.filename:
                continue
            if record.file_size > _PICKLE:
                raise SavedFileError(f"its record {record.filename} is larger than a description")
            if any(word in archive.read(record) for word in _INFLATING):
                raise SavedFileError("it holds bytes objects, which no checkpoint has")
        if end > path.stat().st_size:
            raise SavedFileError("it is cut short")


def load_saved(path: Path) -> Any:
    """Tensors, mapped where the file can be, and plain values; no class of the file's is built.

    Raises:
        OSError: there is no such file, or it is no regular one.
        SavedFileError: it is damaged, foreign, or made to grow.
    """
    check_regular(path)
    # Files of old versions of PyTorch are no zip archives and cannot be mapped.
    mapped = zipfile.is_zipfile(path)
    most = 2 * path.stat().st_size + _ROOM
    try:
        with limited(torch.device("cpu"), most=most):
            if mapped:
                _check_records(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, SavedFileError):
        raise
    except Exception as error:  # torch raises many kinds for a file that it cannot read
        if foreign := re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", str(error)):
            found = f"it holds an object of the class {foreign[1]}"
            raise SavedFileError(f"{found}, and only tensors and plain values are read") from error
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise SavedFileError(reason[0]) from error
