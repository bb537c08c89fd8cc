"""Any photo file as upright pixels in [0, 1] with what belongs to them.

Every failure, whatever the decoder raised, is a :class:`PhotoError` of one line naming the file.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image, ImageCms
from torch import Tensor

from mrdiff.photo.channels import composite, from_pil
from mrdiff.photo.deep import TIFF_STARTS, decode_deep, is_deep
from mrdiff.photo.files import PhotoError
from mrdiff.photo.metadata import Metadata, orientation_of, read_metadata

__all__ = ["PhotoFile", "read_image", "read_mask", "read_photo", "read_rgb", "upright_size"]

_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)  # EXIF


@dataclass(frozen=True)
class PhotoFile:
    """A photo as it was read: upright float32 ``[C, H, W]`` in [0, 1], C as in ``from_pil``.

    ``kind`` is the file's format by Pillow's name; a channel has 8, 16 or (floating point) 32
    ``bits``; ``lossless`` if the file holds all pixels as they were; ``notes`` say to the user what
    could not be carried over.
    """

    image: Tensor
    kind: str = "PNG"
    bits: int = 8
    lossless: bool = True
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def _naming(name: Path | str) -> Iterator[None]:
    """Turn whatever a decoder raises into one line about the file."""
    try:
        yield
    except FileNotFoundError:
        raise PhotoError(f"{name}: no such file") from None
    except Image.UnidentifiedImageError:
        raise PhotoError(f"{name}: not an image that Pillow can read") from None
    except Image.DecompressionBombError as error:
        # Pillow refuses twice what it warns at.
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        what = f"more than {limit:.0f} megapixels; raise --max_megapixels if you trust it"
        raise PhotoError(f"{name}: {what}") from error
    except Exception as error:  # decoders of broken files raise nearly every exception there is
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise PhotoError(f"{name}: {said or type(error).__name__}") from error


def _turned(pixels: Tensor, orientation: int) -> Tensor:
    """``[C, H, W]`` upright, by the EXIF orientation 1 to 8."""
    if orientation in _ON_ITS_SIDE:
        pixels = pixels.transpose(1, 2)
    flips = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(orientation, ())
    return pixels.flip(flips).contiguous() if flips else pixels.contiguous()


def _to_srgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Print colours and others that are no RGB in sRGB, through the file's profile."""
    source: Any
    if image.mode == "CMYK" and (icc := image.info.get("icc_profile")):
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    elif image.mode == "LAB":
        source = ImageCms.createProfile("LAB")
    else:
        rgb = image.convert("RGB")  # YCbCr and HSV, and CMYK of no known ink
        return rgb, [f"{image.mode} became RGB"]
    target = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    assert converted is not None  # only in place it returns nothing
    return converted, [f"{image.mode} became sRGB, through its profile"]


def _lossless(kind: str, data: bytes) -> bool:
    """Whether the file keeps its pixels exactly: by its format or, of a WebP, by its chunks."""
    if kind != "WEBP":
        return kind != "JPEG"
    position = 12
    while position + 8 <= len(data):
        chunk = data[position : position + 4]
        if chunk in (b"VP8L", b"VP8 "):
            return chunk == b"VP8L"
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + size + size % 2
    return False


def _deep_pixels(data: bytes) -> Tensor:
    pixels = torch.from_numpy(decode_deep(data).astype("float32"))
    return rearrange(pixels, "h w c -> c h w") / 65535


def _decoded(image: Image.Image, data: bytes) -> PhotoFile:
    notes = []
    if is_deep(image):
        orientation = orientation_of(image)
        pixels, bits = _deep_pixels(data), 16
    else:
        image.load()
        orientation = orientation_of(image)  # of a TIFF Pillow has applied it while loading
        plain = image
        if image.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
            plain, more = _to_srgb(image)
            notes += more
        pixels = from_pil(plain)
        bits = 32 if image.mode == "F" else 16 if image.mode.startswith("I") else 8
    kind = image.format or "PNG"
    return PhotoFile(_turned(pixels, orientation), kind, bits, notes=tuple(notes))


def _carrying(photo: PhotoFile, image: Image.Image, data: bytes) -> PhotoFile:
    """With what a restored photo takes over; half as much work again, which training spares."""
    frames = getattr(image, "n_frames", 1)
    pages = [f"the first of {frames} pictures"] if frames > 1 else []
    metadata, broken = read_metadata(image, photo.image.shape[2], photo.image.shape[1])
    if image.mode in ("CMYK", "LAB"):
        metadata = replace(metadata, icc=None)  # the profile was of the ink
    return replace(
        photo,
        lossless=_lossless(photo.kind, data),
        metadata=metadata,
        notes=(*pages, *photo.notes, *broken),
    )


def _read(source: Path | str | bytes, name: str, *, carrying: bool) -> PhotoFile:
    with _naming(name or (source if not isinstance(source, bytes) else "photo")):
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        if not data:
            raise OSError("the file is empty")
        try:
            image = Image.open(io.BytesIO(data))
        except Image.UnidentifiedImageError:
            if not data.startswith(TIFF_STARTS):
                raise
            # Of 16-bit grey with alpha, say, which Pillow does not know.
            return PhotoFile(_deep_pixels(data), "TIFF", 16, notes=("read without its metadata",))
        with image:
            photo = _decoded(image, data)
            return _carrying(photo, image, data) if carrying else photo


def read_photo(source: Path | str | bytes, *, name: str = "") -> PhotoFile:
    """Read a photo, a path or the content of a file, with all that belongs to it.

    Pixels stay in the colour space of the file's profile, but for CMYK and Lab, which become sRGB.

    Raises:
        PhotoError: it is missing, broken, beyond Pillow's limit against decompression bombs, or
            not a photo; so do the other readers.
    """
    return _read(source, name, carrying=True)


def read_image(path: Path | str) -> Tensor:
    """Read a photo upright as float32 ``[C, H, W]`` in [0, 1], channels as in ``from_pil``."""
    return _read(path, "", carrying=False).image


def read_rgb(path: Path | str) -> Tensor:
    """Read a photo upright as float32 RGB ``[3, H, W]`` in [0, 1]; alpha is laid on white."""
    return composite(read_image(path))


def read_mask(path: Path | str) -> Tensor:
    """A mask as float32 ``[1, H, W]``: 1 where it is white and 0 where it is black."""
    return (read_rgb(path)[:1] >= 0.5).float()


def upright_size(image: Image.Image, exif: Image.Exif) -> tuple[int, int]:
    """(width, height) as it is seen, of an image that may have been opened but not loaded."""
    width, height = image.size
    # Of a TIFF Pillow gives the upright size already.
    if image.format != "TIFF" and exif.get(_ORIENTATION) in _ON_ITS_SIDE:
        return height, width
    return width, height
