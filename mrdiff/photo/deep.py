"""16-bit colour, which Pillow reads as 8 bits: PNG by imagecodecs, TIFF by tifffile."""

from __future__ import annotations

import io
import math
import struct
import zlib

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from mrdiff.photo.metadata import Metadata

__all__ = ["TIFF_STARTS", "decode_deep", "encode_png", "encode_tiff", "is_deep"]

Pixels = NDArray[np.uint16]  # [H, W, C]
_BITS = 258  # the tag BitsPerSample
_LIGHT = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEADER_END = 33  # of a PNG: signature 8, IHDR 25


def is_deep(image: Image.Image) -> bool:
    """Whether the file has 16 bits a channel of which Pillow would drop 8."""
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(_BITS, ())
        return len(bits) > 1 and max(bits) == 16
    # The raw mode, such as RGB;16B, stands in the tiles of an image that is opened, not loaded.
    return image.mode in ("RGB", "RGBA", "LA") and ";16" in str(getattr(image, "tile", [])[:1])


def decode_deep(data: bytes) -> Pixels:
    """The pixels ``[H, W, C]`` of a PNG or TIFF as they lie in the file, C = 2, 3 or 4."""
    if data.startswith(b"\x89PNG"):
        return np.asarray(imagecodecs.png_decode(data))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        if page.photometric not in _LIGHT or page.samplesperpixel not in (2, 3, 4):
            name = getattr(page.photometric, "name", page.photometric)
            raise ValueError(f"a TIFF of {page.samplesperpixel} channels {name} is not supported")
        if page.imagewidth * page.imagelength > 2 * (Image.MAX_IMAGE_PIXELS or math.inf):
            raise Image.DecompressionBombError
        pixels = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            pixels = np.moveaxis(pixels, 0, -1)
    if pixels.dtype != np.uint16:
        raise ValueError(f"a TIFF of {pixels.dtype} in colour is not supported")
    return pixels


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def encode_png(pixels: Pixels, metadata: Metadata) -> bytes:
    """A 16-bit PNG with the metadata in chunks of its own (PNG specification, 11.3)."""
    plain = imagecodecs.png_encode(np.ascontiguousarray(pixels), level=5)
    chunks = b""
    if metadata.icc:
        chunks += _chunk(b"iCCP", b"icc\0\0" + zlib.compress(metadata.icc))
    if metadata.dpi:
        across, down = (round(value / 0.0254) for value in metadata.dpi)  # to pixels a metre
        chunks += _chunk(b"pHYs", struct.pack(">IIB", across, down, 1))
    if metadata.exif:
        chunks += _chunk(b"eXIf", metadata.exif.removeprefix(b"Exif\0\0"))
    return bytes(plain[:_HEADER_END]) + chunks + bytes(plain[_HEADER_END:])


def encode_tiff(pixels: Pixels, metadata: Metadata) -> bytes:
    """A 16-bit TIFF. Of EXIF it has the texts of the first directory: tifffile writes no others."""
    given = Image.Exif()
    given.load(metadata.exif or b"")
    texts = [(int(tag), "s", 0, value, True) for tag, value in given.items() if type(value) is str]
    colours = 3 if pixels.shape[-1] >= 3 else 1
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        np.ascontiguousarray(pixels if pixels.shape[-1] > 1 else pixels[..., 0]),
        photometric="rgb" if colours == 3 else "minisblack",
        planarconfig="contig" if pixels.shape[-1] > 1 else None,
        extrasamples=["unassalpha"] if pixels.shape[-1] > colours else None,
        compression="zlib",
        predictor=True,
        resolution=metadata.dpi,
        resolutionunit="INCH" if metadata.dpi else None,
        iccprofile=metadata.icc,
        metadata=None,
        software=False,
        extratags=texts,
    )
    return buffer.getvalue()
