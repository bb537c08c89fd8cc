"""Restored photos into files: the depth, profile and EXIF of their originals, whole or absent."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mrdiff.photo.channels import composite, to_pil
from mrdiff.photo.deep import encode_png, encode_tiff
from mrdiff.photo.errors import PhotoError
from mrdiff.photo.metadata import Metadata
from mrdiff.photo.reading import PhotoFile
from mrdiff.system.files import replacing

__all__ = ["FORMATS", "encode_photo", "write_image", "write_photo"]

# What is written, by suffix.
FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
_QUALITY = 95  # of JPEG and WebP
_LONGEST_EXIF = 65533  # bytes in a JPEG
_PLAIN = PhotoFile(torch.zeros(3, 1, 1))


def _options(kind: str, like: PhotoFile) -> dict[str, Any]:
    """What Pillow needs for a format, besides the metadata."""
    if kind == "JPEG":
        return {"quality": _QUALITY, "subsampling": 0}
    if kind == "WEBP":
        # exact: the colours under transparent pixels stay.
        return {"quality": _QUALITY, "lossless": like.lossless, "exact": True, "method": 4}
    # libtiff, which compresses, cannot write the directories of EXIF.
    plain = kind != "TIFF" or like.metadata.exif is not None
    return {} if plain else {"compression": "tiff_deflate"}


def _metadata(kind: str, metadata: Metadata) -> dict[str, Any]:
    """The metadata as Pillow takes it."""
    given = {"icc_profile": metadata.icc, "exif": metadata.exif, "dpi": metadata.dpi}
    if kind == "JPEG" and metadata.exif and len(metadata.exif) > _LONGEST_EXIF:
        del given["exif"]
    if kind == "BMP":
        given = {"dpi": metadata.dpi}
    return {key: value for key, value in given.items() if value}


def _deep(image: Tensor, kind: str, metadata: Metadata) -> bytes:
    values = image.float().clamp(0, 1).mul(65535).round()
    pixels = values.permute(1, 2, 0).cpu().numpy().astype(np.uint16)
    return encode_png(pixels, metadata) if kind == "PNG" else encode_tiff(pixels, metadata)


def encode_photo(image: Tensor, kind: str, like: PhotoFile = _PLAIN) -> bytes:
    """The content of an image file.

    16-bit pixels stay so in PNG and TIFF, 32-bit ones in TIFF; all else has 8 bits. JPEG has
    quality 95 and full-resolution colour (4:4:4), and no alpha: it is laid on white. WebP is
    lossless if its original was.

    Args:
        image: ``[C, H, W]`` in [0, 1], C in 1 to 4.
        kind: one of the values of ``FORMATS``.
        like: the original, for depth and metadata.

    Raises:
        ValueError: the format cannot hold the image.
        OSError: the same, from Pillow.
    """
    if kind == "JPEG" and image.shape[0] in (2, 4):
        image = composite(image)[: 1 if image.shape[0] == 2 else 3]
    if kind == "BMP" and image.shape[0] in (2, 4):
        raise ValueError("a BMP cannot hold transparency: choose another --format")
    if like.bits == 16 and kind in ("PNG", "TIFF"):
        return _deep(image, kind, like.metadata)
    if like.bits == 32 and kind == "TIFF" and image.shape[0] == 1:
        picture = Image.fromarray(image[0].float().cpu().contiguous().numpy())
    else:
        picture = to_pil(image)
    buffer = io.BytesIO()
    metadata = _metadata(kind, like.metadata)
    picture.save(buffer, format=kind, **_options(kind, like), **metadata)
    return buffer.getvalue()


def write_photo(path: Path | str, image: Tensor, like: PhotoFile = _PLAIN) -> None:
    """Write ``[C, H, W]`` in [0, 1] by the suffix of ``path``, see :func:`encode_photo`.

    The file appears under its name only when it is whole. Missing folders are made.

    Raises:
        PhotoError: unknown suffix, values that are not finite, a format that cannot hold the image,
            or a failing disk.
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise PhotoError(f"{path}: can write {', '.join(FORMATS)}, not {path.suffix!r}")
    if not torch.isfinite(image).all():
        raise PhotoError(f"{path}: the image has values that are not finite")
    try:
        content = encode_photo(image, kind, like)
    except (ValueError, OSError, RuntimeError) as error:
        raise PhotoError(f"{path}: {' '.join(str(error).split())}") from error
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise PhotoError(f"{path}: {error.strerror}") from error


def write_image(path: Path | str, image: Tensor) -> None:
    """Write float ``[C, H, W]`` in [0, 1] with 8 bits and no metadata, as :func:`write_photo`."""
    write_photo(path, image)
