"""Directories of EXIF and TIFF, byte for byte.

Pillow decodes their texts as ASCII, and what is not ("© Jürgen", in UTF-8 or Latin-1) is gone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

__all__ = ["Directory", "Tag", "Tags", "merged", "parse_tags"]

# Bytes of a value, by its type: BYTE, ASCII, SHORT, LONG, RATIONAL, ...
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_OTHERS = {13: 4, 16: 8, 17: 8, 18: 8}  # pointers, and those of a BigTIFF alone
_ORDERS: dict[bytes, Literal["<", ">"]] = {b"II": "<", b"MM": ">"}
_EXIF, _GPS, _INTEROP, _MAKER = 34665, 34853, 40965, 37500
_BLOCK = 65536  # bytes of EXIF within which a maker's notes may have a place of their own


class Tag(NamedTuple):
    """A value as it lies in the file: a ``number`` of a type, or bytes of a text."""

    kind: int
    number: int
    value: bytes
    at: int = 0  # where it was


Directory = dict[int, Tag]


class _Form(NamedTuple):
    """How directories are written, in a byte order, of a TIFF or a BigTIFF."""

    word: struct.Struct  # a place in the file, or a short value
    length: struct.Struct
    entry: struct.Struct
    first: int  # where the header says where the first directory is


def _form(order: str, *, big: bool = False) -> _Form:
    codes = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    word, length, entry = (struct.Struct(order + code) for code in codes)
    return _Form(word, length, entry, 8 if big else 4)


def _opened(data: bytes) -> tuple[Literal["<", ">"], _Form, int]:
    """Byte order, form, and where the first directory is."""
    order = _ORDERS[bytes(data[:2])]
    form = _form(order, big=struct.unpack_from(order + "H", data, 2)[0] == 43)
    return order, form, form.word.unpack_from(data, form.first)[0]


@dataclass
class Tags:
    """The first directory of a file or block, and those that belong to it.

    ``whole`` is False if some entries could not be read; they are left out.
    """

    order: Literal["<", ">"] = "<"
    main: Directory = field(default_factory=dict)
    exif: Directory = field(default_factory=dict)
    gps: Directory = field(default_factory=dict)
    interop: Directory = field(default_factory=dict)
    whole: bool = True

    def __bool__(self) -> bool:
        return bool(self.main or self.exif or self.gps)

    def pack(self, code: str, *values: int) -> bytes:
        """Numbers in the byte order of these directories."""
        return struct.pack(self.order + code, *values)

    def block(self) -> bytes:
        """As a block of EXIF, without the prefix that a JPEG has.

        A maker's notes stay where they were: many count from the start of the block.
        """
        maker = self.exif.get(_MAKER)
        stays = maker if maker and 8 <= maker.at < _BLOCK - len(maker.value) else None
        header = (b"II" if self.order == "<" else b"MM") + self.pack("HI", 42, 0)
        layout = _Layout(header, _form(self.order), stays)
        return layout.all(self.main, self)


class _Layout:
    """Values and directories behind a content, one after the other, around the one that stays."""

    def __init__(self, content: bytes, form: _Form, stays: Tag | None = None) -> None:
        self.content, self.form, self.stays = bytearray(content), form, stays
        self.start = stays.at if stays else 0
        self.end = self.start + len(stays.value) if stays else 0

    def place(self, value: bytes) -> int:
        at = len(self.content) + len(self.content) % 2
        if at < self.end and at + len(value) > self.start:
            at = self.end + self.end % 2
        self.content += bytes(at - len(self.content)) + value
        return at

    def directory(self, entries: Directory) -> int:
        form, word = self.form, self.form.word
        written = form.length.pack(len(entries))
        for code, tag in sorted(entries.items()):
            value = tag.value
            if len(value) > word.size:
                value = word.pack(self.start if tag is self.stays else self.place(value))
            written += form.entry.pack(code, tag.kind, tag.number) + value.ljust(word.size, b"\0")
        return self.place(written + word.pack(0))

    def all(self, main: Directory, tags: Tags) -> bytes:
        """The content with the first directory and those below it; its header points to them."""
        main, exif = dict(main), dict(tags.exif)
        below = ((exif, _INTEROP, tags.interop), (main, _EXIF, exif), (main, _GPS, tags.gps))
        for owner, code, part in below:
            if part:
                kind = 16 if self.form.word.size == 8 else 4
                owner[code] = Tag(kind, 1, self.form.word.pack(self.directory(part)))
        self.form.word.pack_into(self.content, self.form.first, self.directory(main))
        if self.stays is not None:
            self.content += bytes(max(0, self.end - len(self.content)))
            self.content[self.start : self.end] = self.stays.value
        return bytes(self.content)


def _read(data: bytes, at: int, form: _Form, tags: Tags) -> Directory:
    (count,) = form.length.unpack_from(data, at)
    at, room, found = at + form.length.size, len(data), {}
    for _ in range(min(count, 65535)):
        if at + form.entry.size + form.word.size > len(data):
            tags.whole = False
            break
        code, kind, number = form.entry.unpack_from(data, at)
        size, spot = (_SIZES | _OTHERS).get(kind, 0) * number, at + form.entry.size
        if size > form.word.size:
            (spot,) = form.word.unpack_from(data, spot)
        at += form.entry.size + form.word.size
        room -= size  # values that overlap could else be made to fill the memory
        if spot + size > len(data) or room < 0:
            tags.whole = False
        elif size:
            found[code] = Tag(kind, number, bytes(data[spot : spot + size]), spot)
    return found


def parse_tags(data: bytes) -> Tags:
    """The directories of a TIFF file or a block of EXIF.

    Raises:
        KeyError, struct.error: it does not begin as one.
    """
    order, form, first = _opened(data)
    tags = Tags(order)

    def below(owner: Directory, code: int) -> Directory:
        pointer = owner.pop(code, None)
        if pointer is None:
            return {}
        wide = "Q" if len(pointer.value) == 8 else "I"
        return _read(data, struct.unpack(order + wide, pointer.value)[0], form, tags)

    tags.main = _read(data, first, form, tags)
    try:
        tags.exif, tags.gps = below(tags.main, _EXIF), below(tags.main, _GPS)
        tags.interop = below(tags.exif, _INTEROP)
    except struct.error:
        tags.whole = False
    for part in (tags.main, tags.exif, tags.gps, tags.interop):
        for code in [code for code, tag in part.items() if tag.kind in _OTHERS]:
            del part[code]  # what a pointer points to is not taken along
    return tags


def merged(data: bytes, tags: Tags) -> bytes:
    """A TIFF file of the same byte order with these tags in its first directory, over its own."""
    _, form, first = _opened(data)
    return _Layout(data, form).all(_read(data, first, form, Tags()) | tags.main, tags)
