"""Restored photos into files: the numbers and metadata of their originals, whole or absent."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from mrdiff.photo.channels import composite, to_pil
from mrdiff.photo.files import FORMATS, PhotoError
from mrdiff.photo.metadata import Metadata, fitting
from mrdiff.photo.reading import PhotoFile
from mrdiff.photo.tags import Tag, Tags, parse_tags
from mrdiff.photo.tiffs import encode_tiff
from mrdiff.system.files import replacing

__all__ = ["encode_photo", "write_image", "write_photo"]

_QUALITY = 95  # of JPEG, WebP and AVIF
_PLAIN = PhotoFile(torch.zeros(3, 1, 1))
_HEADER_END = 33  # of a PNG: signature 8, IHDR 25
_JFIF_END = 20  # of a JPEG as Pillow writes it: SOI 2, APP0 18

OnLoss = Callable[[str], None]


def _ignore(what: str) -> None:
    pass


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _png(image: Tensor, metadata: Metadata, *, deep: bool) -> bytes:
    """With the metadata in chunks of its own (PNG specification, 11.3)."""
    values = rearrange(image.cpu().float().clamp(0, 1), "c h w -> h w c")
    if deep:
        pixels = np.ascontiguousarray(values.mul(65535).round().numpy().astype(np.uint16))
        plain = bytes(imagecodecs.png_encode(pixels, level=5))
    else:
        plain = _saved(image, "PNG")
    chunks = [] if metadata.icc is None else [(b"iCCP", b"icc\0\0" + zlib.compress(metadata.icc))]
    chunks += metadata.chunks
    if metadata.dpi:
        across, down = (round(value / 0.0254) for value in metadata.dpi)  # to pixels a metre
        chunks.append((b"pHYs", struct.pack(">IIB", across, down, 1)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif))
    if metadata.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    chunks += [(b"tEXt", b"Comment\0" + comment) for comment in metadata.comments]
    written = b"".join(_chunk(*chunk) for chunk in chunks)
    return plain[:_HEADER_END] + written + plain[_HEADER_END:]


def _jpeg(image: Tensor, metadata: Metadata) -> bytes:
    plain = _saved(image, "JPEG", quality=_QUALITY, subsampling=0, **_given(metadata))
    segments = [(0xFE, comment) for comment in metadata.comments]
    if metadata.iptc:
        record = metadata.iptc + b"\0" * (len(metadata.iptc) % 2)
        block = struct.pack(">4sHHI", b"8BIM", 0x0404, 0, len(metadata.iptc)) + record
        segments.append((0xED, b"Photoshop 3.0\0" + block))
    written = b"".join(struct.pack(">BBH", 255, m, len(c) + 2) + c for m, c in segments)
    return plain[:_JFIF_END] + written + plain[_JFIF_END:]


def _given(metadata: Metadata) -> dict[str, Any]:
    exif = metadata.exif and b"Exif\0\0" + metadata.exif
    given = {"icc_profile": metadata.icc, "exif": exif, "xmp": metadata.xmp, "dpi": metadata.dpi}
    return {key: value for key, value in given.items() if value}


def _with_resolution(metadata: Metadata) -> dict[str, Any]:
    """For formats that have no other place for it than EXIF."""
    tags = parse_tags(metadata.exif) if metadata.exif else Tags()
    tags.main.pop(274, None)  # upright it is anyway; to strip it Pillow would write all anew
    if metadata.dpi and 282 not in tags.main:
        for code, value in zip((282, 283), metadata.dpi, strict=True):
            tags.main[code] = Tag(5, 1, tags.pack("II", round(value * 1000), 1000))
        tags.main[296] = Tag(3, 1, tags.pack("H", 2))  # inches
    return _given(replace(metadata, exif=tags.block() if tags else None))


def _saved(image: Tensor, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    to_pil(image).save(buffer, format=kind, **options)
    return buffer.getvalue()


def _losses(image: Tensor, kind: str, like: PhotoFile, metadata: list[str]) -> list[str]:
    """What a format takes away, in words."""
    lost = []
    if kind == "JPEG" and image.shape[0] in (2, 4) and bool((image[-1] < 1).any()):
        lost.append("transparency was laid on white: a JPEG has none")
    most = {"TIFF": 64, "PNG": 16}.get(kind, 8)
    if like.bits > most:
        lost.append(f"{like.bits} bits became {most}")
    if like.extra is not None and kind != "TIFF":
        metadata = [f"channels beside the colours ({len(like.extra)})", *metadata]
    if metadata:
        lost.append(f"left out, not held by {kind}: {', '.join(metadata)}")
    return lost


def encode_photo(
    image: Tensor, kind: str, like: PhotoFile = _PLAIN, *, on_loss: OnLoss = _ignore
) -> bytes:
    """The content of an image file of ``[C, H, W]`` in [0, 1], C in 1 to 4.

    ``like``, the original, has the depth and the metadata. A TIFF gets numbers of its kind and its
    other channels, a PNG 8 or 16 bits, all else 8. JPEG has quality 95 and full-resolution colour
    (4:4:4), and no alpha: it is laid on white. WebP is lossless if its original was. ``on_loss``
    is called with a line on each thing that the file does not hold of the original.

    Raises:
        ValueError, OSError: the format, a value of ``FORMATS``, cannot hold the image.
    """
    if kind == "BMP" and image.shape[0] in (2, 4):
        raise ValueError("a BMP cannot hold transparency: choose another --format")
    metadata, left_out = fitting(kind, like.metadata, grey=image.shape[0] <= 2)
    for loss in _losses(image, kind, like, left_out):
        on_loss(loss)
    if kind == "TIFF":
        return encode_tiff(image, metadata, extra=like.extra, bits=like.bits, sample=like.sample)
    if kind == "PNG":
        return _png(image, metadata, deep=like.bits > 8)
    if kind == "JPEG":
        opaque = image.shape[0] in (1, 3)
        return _jpeg(image if opaque else composite(image)[: image.shape[0] - 1], metadata)
    if kind == "AVIF":
        chroma = "4:0:0" if image.shape[0] <= 2 else "4:4:4"
        given = _with_resolution(metadata)
        return _saved(image, kind, quality=_QUALITY, subsampling=chroma, **given)
    if kind == "WEBP":
        # exact: the colours under transparent pixels stay.
        options = {"quality": _QUALITY, "lossless": like.lossless, "exact": True, "method": 4}
        return _saved(image, kind, **options, **_with_resolution(metadata))
    return _saved(image, kind, **_given(metadata))


def write_photo(
    path: Path | str, image: Tensor, like: PhotoFile = _PLAIN, *, on_loss: OnLoss = _ignore
) -> None:
    """Write ``[C, H, W]`` in [0, 1] by the suffix of ``path``, see :func:`encode_photo`.

    The file appears when it is whole; missing folders are made. What cannot be written, such as
    values that are not finite, is a PhotoError.
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise PhotoError(f"{path}: can write {', '.join(FORMATS)}, not {path.suffix!r}")
    if not torch.isfinite(image).all():
        raise PhotoError(f"{path}: the image has values that are not finite")
    try:
        content = encode_photo(image, kind, like, on_loss=on_loss)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except (ValueError, OSError, RuntimeError) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise PhotoError(f"{path}: {said}") from error


def write_image(path: Path | str, image: Tensor) -> None:
    """Write float ``[C, H, W]`` in [0, 1] with 8 bits and no metadata, as :func:`write_photo`."""
    write_photo(path, image)
