"""Look at every image file once, in threads: Pillow's decoders let the others run.

Little is remembered of each (some numbers, a hash, 16 x 16 values): a hundred thousand files need
some hundred megabytes, whatever their pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mrdiff.cli.common.errors import one_line
from mrdiff.photo import GREY_MODES, from_pil, open_image, upright_size
from mrdiff.system.cores import available_cores

FINGERPRINT = 16  # side of the thumbnail that near duplicates are found by
_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # 16-bit grey
_ALPHA_MODES = ("LA", "La", "RGBA", "RGBa", "PA")
_AT_ONCE = 512  # files handed to the threads together


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of an image file; all after ``transparent`` needs its pixels."""

    path: Path
    problem: str = ""  # why it cannot be read
    width: int = 0  # in pixels, upright
    height: int = 0
    grey: bool = False  # one channel rather than three, alpha apart
    bits: int = 8  # of a channel in the file: 8, 16, or 32 for floating point
    transparent: bool = False  # not opaque; by the header alone, that there is an alpha channel
    decoded: bool = False  # whether the pixels were looked at
    low: float = 0.0  # the least value of any channel, as decoded
    high: float = 0.0  # the greatest
    constant: bool = False  # every pixel has one colour
    digest: bytes = b""  # of the decoded pixels
    fingerprint: NDArray[np.float16] | None = None


def _bits(image: Any) -> int:
    """Bits of a channel in the file, which Pillow may have dropped already."""
    if image.mode in _WIDE_MODES:
        return 16
    # The raw mode of a 16-bit colour PNG or TIFF, such as RGB;16B, stands in its tiles.
    return 32 if image.mode == "F" else 16 if ";16" in str(getattr(image, "tile", [])[:1]) else 8


def _values(image: Image.Image) -> NDArray[Any]:
    """The decoded pixels ``[H, W]`` or ``[H, W, C]``; grey of 8 bits as RGB, as it is read.

    Raises:
        ValueError: values that reading refuses.
    """
    if image.mode in (*_WIDE_MODES, "F"):
        from_pil(image)
        return np.asarray(image)
    alpha = image.mode in _ALPHA_MODES or "transparency" in image.info
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    return np.asarray(image.convert("RGBA" if alpha else "RGB"))


def fingerprint(image: Image.Image, *, side: int = FINGERPRINT) -> NDArray[np.float16] | None:
    """A thumbnail of ``side`` x ``side`` grey values less their mean, of length 1.

    The scalar product of two is their correlation. None for a picture without contrast.
    """
    if image.mode in (*_WIDE_MODES, "F"):
        scale = 255.0 if image.mode == "F" else 1 / 257
        grey = Image.fromarray(np.asarray(image).astype(np.float32) * np.float32(scale))
    else:
        grey = image.convert("RGB").convert("L")
    small = grey.resize((side, side), Image.Resampling.BOX)
    values = np.asarray(small, dtype=np.float32).ravel()
    values = values - values.mean()
    length = float(np.linalg.norm(values))
    # A standard deviation below one level of 255 is noise or nothing.
    return None if length < side else (values / length).astype(np.float16)


def _measured(header: Picture, image: Image.Image) -> Picture:
    """A picture of which the header is known, with all that its pixels show."""
    image.load()
    upright = ImageOps.exif_transpose(image)
    values = _values(upright)
    colours = values[..., :3] if values.ndim == 3 else values
    channels = colours.reshape(-1, colours.shape[2] if values.ndim == 3 else 1)
    low, high = channels.min(axis=0), channels.max(axis=0)
    digest = hashlib.blake2b(repr((values.shape, values.dtype.str)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(values).data)
    return replace(
        header,
        transparent=values.ndim == 3 and bool((values[..., 3:] < 255).any()),
        decoded=True,
        low=float(low.min()),
        high=float(high.max()),
        constant=bool((low == high).all()),
        digest=digest.digest(),
        fingerprint=fingerprint(upright),
    )


def look(path: Path, *, quick: bool) -> Picture:
    """Read a file, or its header alone."""
    try:
        with open_image(path) as image:
            bits = _bits(image)  # before anything is loaded, and the tiles with it
            # Pillow's own for PNG decodes the whole file, in search of a late chunk.
            exif = Image.Image.getexif(image) if quick else image.getexif()
            width, height = upright_size(image, exif)
            header = Picture(
                path,
                width=width,
                height=height,
                grey=image.mode in GREY_MODES,
                bits=bits,
                transparent=image.mode in _ALPHA_MODES or "transparency" in image.info,
            )
            return header if quick else _measured(header, image)
    except Exception as error:  # decoders of broken files raise nearly every exception there is
        problem = one_line(str(error).removeprefix(f"{path}: "))
        return Picture(path, problem=problem or type(error).__name__)


def scan(paths: Sequence[Path], *, quick: bool) -> Iterator[Picture]:
    """The pictures of all files, in order."""
    with ThreadPoolExecutor(available_cores()) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            part = paths[start : start + _AT_ONCE]
            yield from pool.map(lambda path: look(path, quick=quick), part)
