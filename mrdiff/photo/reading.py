"""Any photo file as upright pixels in [0, 1] with what belongs to them.

Every failure, whatever the decoder raised, is a :class:`PhotoError` of one line naming the file.
"""

from __future__ import annotations

import contextlib
import io
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from mrdiff.photo.channels import composite, from_pil, scaled, to_uint8
from mrdiff.photo.deep import decode_deep, is_deep_avif
from mrdiff.photo.files import OPENED, PhotoError
from mrdiff.photo.inks import INKS, NO_RGB, to_srgb
from mrdiff.photo.jxl import JXL_STARTS, decode_jxl
from mrdiff.photo.metadata import ON_ITS_SIDE, Metadata, orientation_of, read_metadata
from mrdiff.photo.tiffs import TIFF_STARTS, decode_tiff, is_plain

__all__ = ["PhotoFile", "limit_megapixels", "read_image", "read_mask", "read_photo", "read_rgb"]

_LOSSY = ("JPEG", "AVIF", "JPEG2000", "JXL")  # or not known to be lossless


@dataclass(frozen=True)
class PhotoFile:
    """A photo as it was read: upright float32 ``[C, H, W]`` in [0, 1], C as in ``from_pil``.

    ``kind`` is the file's format by Pillow's name; a number of a channel has ``bits`` and is a
    ``sample`` of type "uint", "int" or "float"; ``extra`` ``[E, H, W]`` are channels of a TIFF that
    are neither colour nor transparency; ``lossless`` if the file holds all pixels as they were;
    ``notes`` say to the user what could not be carried over.
    """

    image: Tensor
    kind: str = "PNG"
    bits: int = 8
    sample: str = "uint"
    extra: Tensor | None = None
    lossless: bool = True
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()


def limit_megapixels(most: int) -> None:
    """Refuse larger photos from now on, against decompression bombs."""
    Image.MAX_IMAGE_PIXELS = most * 500_000  # Pillow warns from there on, and refuses twice that
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


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
        if not isinstance(error, (OSError, ValueError, RuntimeError, SyntaxError)):
            said = f"broken ({type(error).__name__}: {said})"  # said to programmers
        raise PhotoError(f"{name}: {said or type(error).__name__}") from error


def _turned(pixels: Tensor, orientation: int) -> Tensor:
    """``[C, H, W]`` upright, by the EXIF orientation 1 to 8."""
    if orientation in ON_ITS_SIDE:
        pixels = pixels.transpose(1, 2)
    flips = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(orientation, ())
    return pixels.flip(flips).contiguous() if flips else pixels.contiguous()


def _lossless(kind: str, data: bytes) -> bool:
    """Whether the file keeps its pixels exactly: by its format or, of a WebP, by its chunks."""
    if kind != "WEBP":
        return kind not in _LOSSY
    position = 12
    while position + 8 <= len(data):
        chunk = data[position : position + 4]
        if chunk in (b"VP8L", b"VP8 "):
            return chunk == b"VP8L"
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + size + size % 2
    return False


@dataclass
class _Decoded:
    """What the pixels of a file are, before its metadata is looked at."""

    pixels: Tensor  # as they lie in the file
    kind: str
    bits: int = 8
    sample: str = "uint"
    extra: Tensor | None = None
    orientation: int = 1  # that the file asks for
    upright: bool = False  # the pixels are so already
    ink: bool = False  # a profile is not of them, but of the ink
    pages: int | None = None  # None: Pillow counts them
    notes: list[str] = field(default_factory=list)


def _from_tiff(data: bytes) -> _Decoded:
    tiff = decode_tiff(data)
    found = _Decoded(tiff.channels, "TIFF", tiff.bits, tiff.sample, orientation=tiff.orientation)
    found.extra, found.ink = tiff.extra if len(tiff.extra) else None, tiff.ink
    found.pages = tiff.pages
    if tiff.ink:
        inks = rearrange(to_uint8(tiff.channels[:4]), "c h w -> h w c").contiguous().numpy()
        image = Image.fromarray(inks, "CMYK")
        image.info["icc_profile"] = read_metadata(None, data, 1, 1, 1)[0].icc
        rgb, said = to_srgb(image)
        found.notes.append(said if tiff.bits == 8 else f"{said}, of 8 bits")
        found.pixels = torch.cat([from_pil(rgb), tiff.channels[4:]])
        found.bits, found.sample = 8, "uint"
    return found


def _from_array(values: NDArray[np.generic], top: float, kind: str) -> _Decoded:
    values = values[..., None] if values.ndim == 2 else values
    pixels = rearrange(torch.from_numpy(scaled(values, top=top)), "h w c -> c h w")
    floats = values.dtype.kind == "f"
    bits = 8 if top == 255 else 32 if floats else 16
    return _Decoded(pixels, kind, bits, "float" if floats else "uint")


def _from_pillow(image: Image.Image, data: bytes) -> _Decoded:
    kind = "JPEG" if image.format == "MPO" else image.format or "PNG"
    deep = decode_deep(image, data)
    if deep is not None:
        found = _from_array(*deep, kind)
        found.orientation = orientation_of(image)
        return found
    orientation = orientation_of(image)
    image.load()
    notes = ["more than 8 bits became 8"] if kind == "AVIF" and is_deep_avif(data) else []
    plain: Image.Image = image
    if image.mode in NO_RGB:
        plain, said = to_srgb(image)
        notes.append(said)
    bits = 32 if image.mode == "F" else 16 if image.mode.startswith("I") else 8
    return _Decoded(
        from_pil(plain),
        kind,
        bits,
        sample="float" if image.mode == "F" else "uint",
        orientation=orientation,
        upright=kind == "TIFF",  # Pillow has turned it while loading
        ink=image.mode in INKS,
        notes=notes,
    )


def _opened(data: bytes) -> Image.Image | None:
    try:
        return Image.open(io.BytesIO(data), formats=OPENED)
    except Image.UnidentifiedImageError:
        if data.startswith((*TIFF_STARTS, *JXL_STARTS)):
            return None  # of 16-bit grey with alpha, say
        raise


def _decoded(image: Image.Image | None, data: bytes) -> _Decoded:
    if image is None and data.startswith(JXL_STARTS):
        values, moves = decode_jxl(data)
        top = {"uint8": 255, "uint16": 65535}.get(values.dtype.name, 1)
        found = _from_array(values, top, "JXL")
        found.notes += ["the first picture of an animation"] if moves else []
        return found
    if image is None or (isinstance(image, TiffImageFile) and not is_plain(image)):
        return _from_tiff(data)
    return _from_pillow(image, data)


def _content(source: Path | str | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    if not stat.S_ISREG(Path(source).stat().st_mode):  # a pipe may never end
        raise OSError("not a file" if Path(source).is_dir() else "a device or pipe, not a file")
    return Path(source).read_bytes()


def _read(source: Path | str | bytes, name: str, *, carrying: bool) -> PhotoFile:
    with _naming(name or (source if not isinstance(source, bytes) else "photo")):
        data = _content(source)
        if not data:
            raise OSError("the file is empty")
        with _opened(data) or contextlib.nullcontext() as image:
            found = _decoded(image, data)
            turn = 1 if found.upright else found.orientation
            pixels = _turned(found.pixels, turn)
            photo = PhotoFile(pixels, found.kind, found.bits, found.sample)
            if not carrying:
                return photo
            # Half as much work again, which training spares.
            height, width = pixels.shape[1:]
            pages = getattr(image, "n_frames", 1) if found.pages is None else found.pages
            if pages > 1:
                found.notes.insert(0, f"the first of {pages} pictures")
            metadata, said = read_metadata(image, data, found.orientation, width, height)
        return replace(
            photo,
            extra=None if found.extra is None else _turned(found.extra, turn),
            lossless=_lossless(photo.kind, data),
            metadata=replace(metadata, icc=None) if found.ink else metadata,
            notes=(*found.notes, *said),
        )


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
