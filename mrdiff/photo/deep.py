"""What Pillow reads in 8 bits though the file has more: PNG, PPM and JPEG 2000."""

from __future__ import annotations

import re

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["decode_deep", "is_deep_avif"]

_SIZES = b"\xff\x4f\xff\x51"  # how the stream of a JPEG 2000 begins


def _deep_png(image: Image.Image, data: bytes) -> NDArray[np.generic] | None:
    # The raw mode, such as RGB;16B, stands in the tiles of an image that is opened, not loaded.
    deep = ";16" in str(getattr(image, "tile", [])[:1])
    # Pillow compares a transparent grey of 2 bits with pixels of 8.
    if deep or ("transparency" in image.info and image.mode != "P"):
        return np.asarray(imagecodecs.png_decode(data))
    return None


def _deep_ppm(image: Image.Image, data: bytes) -> tuple[NDArray[np.generic], int] | None:
    tile = getattr(image, "tile", [None])[0]
    names = ("ppm", "ppm_plain")
    if tile is None or image.mode != "RGB" or tile.codec_name not in names or tile.args[-1] < 256:
        return None
    count = image.width * image.height * 3
    if tile.codec_name == "ppm":
        values = np.frombuffer(data, ">u2", count, tile.offset).astype(np.uint16)
    else:
        words = re.sub(rb"#.*", b"", data[tile.offset :]).split(maxsplit=count)
        values = np.array(words[:count], np.uint16)
    return values.reshape(image.height, image.width, 3), tile.args[-1]


def _deep_jp2(data: bytes) -> tuple[NDArray[np.generic], int] | None:
    start = data.find(_SIZES)
    depth = data[start + 42] if 0 <= start < len(data) - 42 else 0  # Ssiz of ISO 15444-1
    if not 8 <= depth < 128:  # bits - 1; from 128 signed, which Pillow shifts
        return None
    return np.asarray(imagecodecs.jpeg2k_decode(data)), 2 ** (depth + 1) - 1


def decode_deep(image: Image.Image, data: bytes) -> tuple[NDArray[np.generic], int] | None:
    """Numbers ``[H, W]`` or ``[H, W, C]`` and the highest there may be; None: Pillow has them all.

    ``image`` is opened and not loaded.
    """
    if image.format == "PNG":
        values = _deep_png(image, data)
        return None if values is None else (values, 255 if values.dtype == np.uint8 else 65535)
    if image.format == "PPM":
        return _deep_ppm(image, data)
    return _deep_jp2(data) if image.format == "JPEG2000" else None


def is_deep_avif(data: bytes) -> bool:
    """Whether an AVIF has more than 8 bits: the flag high_bitdepth among its codec's settings."""
    at = data.find(b"av1C")
    return 0 <= at < len(data) - 6 and bool(data[at + 6] & 0x40)
