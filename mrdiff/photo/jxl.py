"""JPEG XL by imagecodecs, which tells neither the size before it decodes nor the metadata."""

from __future__ import annotations

import math
from collections.abc import Iterator

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["JXL_STARTS", "decode_jxl", "jxl_metadata"]

_BARE = b"\xff\x0a"
JXL_STARTS = (_BARE, b"\0\0\0\x0cJXL \r\n\x87\n")
_MOST_BYTES = 2**24  # of metadata that was compressed
_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each box of a container."""
    at = 0
    while at + 8 <= len(data):
        size, start = int.from_bytes(data[at : at + 4], "big"), at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        end = at + size if size else len(data)
        if end < start:
            return
        yield data[at + 4 : at + 8], data[start:end]
        at = end


def jxl_metadata(data: bytes) -> dict[bytes, bytes]:
    """The boxes of EXIF and XMP by their kinds, ``Exif`` and ``xml ``."""
    found: dict[bytes, bytes] = {}
    for kind, content in _boxes(data):
        packed = kind == b"brob"
        kind = content[:4] if packed else kind
        if kind in (b"Exif", b"xml ") and kind not in found:
            if packed:
                content = bytes(imagecodecs.brotli_decode(content[4:], out=_MOST_BYTES))
            found[kind] = content
    return found


def _header(data: bytes) -> tuple[int, int, bool]:
    """Width, height and whether it moves, from the first bits of a file (ISO 18181-1, annex D)."""
    if not data.startswith(_BARE):
        streams = {b"jxlc": 0, b"jxlp": 4}
        parts = (part[streams[kind] :] for kind, part in _boxes(data) if kind in streams)
        data = next(parts, b"")
    bits = int.from_bytes(data[2:32], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def size() -> tuple[int, int]:
        small = take(1)

        def length() -> int:
            return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

        height = length()
        ratio = _RATIOS[take(3)]
        return (length() if ratio is None else height * ratio[0] // ratio[1]), height

    width, height = size()
    moves = False
    if not take(1) and take(1):  # not all is as usual
        take(3)  # orientation
        if take(1):
            size()  # to be shown in
        moves = not take(1) and bool(take(1))  # no preview, behind which it would be
    return width, height, moves


def decode_jxl(data: bytes) -> tuple[NDArray[np.generic], bool]:
    """The first picture, upright, ``[H, W]`` or ``[H, W, C]``, and whether others follow."""
    width, height, moves = _header(data)
    if width * height > 2 * (Image.MAX_IMAGE_PIXELS or math.inf):
        raise Image.DecompressionBombError
    return np.asarray(imagecodecs.jpegxl_decode(data, index=0)), moves
