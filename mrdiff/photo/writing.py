"""Restored photos into files: the depth, profile and EXIF of their originals, whole or absent."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from mrdiff.photo.channels import composite, to_pil
from mrdiff.photo.deep import encode_png, encode_tiff
from mrdiff.photo.files import FORMATS, PhotoError
from mrdiff.photo.metadata import Metadata
from mrdiff.photo.reading import PhotoFile
from mrdiff.system.files import replacing

__all__ = ["encode_photo", "write_image", "write_photo"]

_QUALITY = 95  # of JPEG and WebP
_LONGEST_EXIF = 65533  # bytes in a JPEG
_PLAIN = PhotoFile(torch.zeros(3, 1, 1))


def _options(kind: str, like: PhotoFile) -> dict[str, Any]:
    if kind == "JPEG":
        return {"quality": _QUALITY, "subsampling": 0}
    if kind == "WEBP":
        # exact: the colours under transparent pixels stay.
        return {"quality": _QUALITY, "lossless": like.lossless, "exact": True, "method": 4}
    # libtiff, which compresses, cannot write the directories of EXIF.
    plain = kind != "TIFF" or like.metadata.exif is not None
    return {} if plain else {"compression": "tiff_deflate"}


def _metadata(kind: str, metadata: Metadata) -> dict[str, Any]:
    given = {"icc_profile": metadata.icc, "exif": metadata.exif, "dpi": metadata.dpi}
    if kind == "JPEG" and metadata.exif and len(metadata.exif) > _LONGEST_EXIF:
        del given["exif"]
    if kind == "BMP":
        given = {"dpi": metadata.dpi}
    return {key: value for key, value in given.items() if value}


def encode_photo(image: Tensor, kind: str, like: PhotoFile = _PLAIN) -> bytes:
    """The content of an image file of ``[C, H, W]`` in [0, 1], C in 1 to 4.

    ``like``, the original, has the depth and the metadata. 16-bit pixels stay so in PNG and TIFF,
    32-bit ones in TIFF; all else has 8 bits. JPEG has quality 95 and full-resolution colour
    (4:4:4), and no alpha: it is laid on white. WebP is lossless if its original was.

    Raises:
        ValueError, OSError: the format, a value of ``FORMATS``, cannot hold the image.
    """
    if kind == "JPEG" and image.shape[0] in (2, 4):
        image = composite(image)[: 1 if image.shape[0] == 2 else 3]
    if kind == "BMP" and image.shape[0] in (2, 4):
        raise ValueError("a BMP cannot hold transparency: choose another --format")
    if like.bits == 16 and kind in ("PNG", "TIFF"):
        values = rearrange(image.float().clamp(0, 1).mul(65535).round(), "c h w -> h w c")
        encode = encode_png if kind == "PNG" else encode_tiff
        return encode(values.cpu().numpy().astype(np.uint16), like.metadata)
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
        content = encode_photo(image, kind, like)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except (ValueError, OSError, RuntimeError) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise PhotoError(f"{path}: {said}") from error


def write_image(path: Path | str, image: Tensor) -> None:
    """Write float ``[C, H, W]`` in [0, 1] with 8 bits and no metadata, as :func:`write_photo`."""
    write_photo(path, image)
