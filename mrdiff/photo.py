"""Photos in and out: any file Pillow opens becomes float channels in [0, 1], and back.

Pillow's own ``convert("RGB")`` is not enough: it clips 16-bit grey at 255, ignores the EXIF
orientation, and shows whatever colours lie under transparent pixels. The modes are therefore
handled one by one here, and every failure is a :class:`PhotoError` of one line naming the file.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

__all__ = [
    "GREY_MODES",
    "IMAGE_SUFFIXES",
    "JPEG_SUFFIXES",
    "PhotoError",
    "centre_crop",
    "composite",
    "from_pil",
    "join_alpha",
    "list_images",
    "read_image",
    "read_mask",
    "read_rgb",
    "split_alpha",
    "to_pil",
    "to_uint8",
    "upright_size",
    "write_image",
]

JPEG_SUFFIXES = frozenset({".jpg", ".jpeg"})
IMAGE_SUFFIXES = JPEG_SUFFIXES | {
    ".png",
    ".bmp",
    ".gif",
    ".ppm",
    ".pgm",
    ".tif",
    ".tiff",
    ".webp",
}

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's own conversion to grey
_EIGHT_BIT = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
GREY_MODES = ("1", "L", "LA", "La", "F", *_SIXTEEN_BIT)
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)  # EXIF


class PhotoError(ValueError):
    """A photo that cannot be read or written: one line, naming the file and the reason."""


def list_images(folder: Path | str) -> list[Path]:
    """Every image file below ``folder``, sorted; hidden files and folders are skipped.

    Raises:
        PhotoError: ``folder`` is not a folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise PhotoError(f"{root}: no such folder")
    found = [path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
    visible = [p for p in found if not any(s.startswith(".") for s in p.relative_to(root).parts)]
    return sorted(path for path in visible if path.is_file())


def _scaled(values: np.ndarray, *, top: float) -> np.ndarray:
    """``values / top`` in float32; values beyond [0, top] are refused, never clipped."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= top):  # also catches NaN
        raise ValueError(f"values from {low:g} to {high:g}, expected 0 to {top:g}")
    return (values.astype(np.float64) / top).astype(np.float32)


def from_pil(image: Image.Image) -> Tensor:
    """A Pillow image as float32 ``[C, H, W]`` in [0, 1]; C = 1 grey, 2 grey+alpha, 3 RGB, 4 RGBA.

    The EXIF orientation is not applied here (see :func:`read_image`). 16-bit RGB files come from
    Pillow in 8 bits already; 16-bit grey keeps all its bits.

    Raises:
        ValueError: floating-point or 32-bit values outside [0, 1] or [0, 65535].
    """
    if image.mode in _SIXTEEN_BIT:
        return torch.from_numpy(_scaled(np.asarray(image), top=65535.0))[None]
    if image.mode == "F":
        return torch.from_numpy(_scaled(np.asarray(image), top=1.0))[None]
    alpha = image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA", "La")
    mode = _EIGHT_BIT[(1 if grey else 3) + int(alpha)]
    if image.mode == "La":  # premultiplied: Pillow leads from it to LA alone
        image = image.convert("LA")
    pixels = np.array(image if image.mode == mode else image.convert(mode))  # a writable copy
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(255.0).contiguous()


def composite(image: Tensor) -> Tensor:
    """``[C, H, W]``, C in 1 to 4, as RGB ``[3, H, W]``: grey repeated, alpha laid on white."""
    colour = image[:1] if image.shape[0] <= 2 else image[:3]
    if image.shape[0] in (2, 4):
        colour = colour * image[-1:] + (1.0 - image[-1:])
    return colour.expand(3, -1, -1).contiguous()


def read_image(path: Path | str) -> Tensor:
    """Read a photo upright as float32 ``[C, H, W]`` in [0, 1], channels as in :func:`from_pil`.

    Raises:
        PhotoError: the file is missing, broken, or not a photo.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return from_pil(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise PhotoError(f"{path}: no such file") from None
    except Image.UnidentifiedImageError:
        raise PhotoError(f"{path}: not an image that Pillow can read") from None
    except Exception as error:  # decoders of broken files raise nearly every exception there is
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PhotoError(f"{path}: {reason}") from error


def read_rgb(path: Path | str) -> Tensor:
    """Read a photo upright as float32 RGB ``[3, H, W]`` in [0, 1]; alpha is laid on white.

    Raises:
        PhotoError: the file is missing, broken, or not a photo.
    """
    return composite(read_image(path))


def read_mask(path: Path | str) -> Tensor:
    """A mask as float32 ``[1, H, W]``: 1 where it is white and 0 where it is black.

    Raises:
        PhotoError: it cannot be read.
    """
    return (read_rgb(path)[:1] >= 0.5).float()


def upright_size(image: Image.Image, exif: Image.Exif) -> tuple[int, int]:
    """(width, height) as it is seen, of an image that may have been opened but not loaded."""
    width, height = image.size
    # Of a TIFF Pillow gives the upright size already.
    if image.format != "TIFF" and exif.get(_ORIENTATION) in _ON_ITS_SIDE:
        return height, width
    return width, height


def to_uint8(image: Tensor) -> Tensor:
    """Clamp to [0, 1] and round to 0..255: what an 8-bit file holds. Any shape."""
    return image.detach().float().clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    """Float ``[C, H, W]`` in [0, 1], C in 1 to 4, as an 8-bit Pillow image (L, LA, RGB, RGBA)."""
    if image.ndim != 3 or image.shape[0] not in _EIGHT_BIT:
        raise ValueError(f"expected [C, H, W] with 1 to 4 channels, got {tuple(image.shape)}")
    pixels = to_uint8(image).permute(1, 2, 0).cpu().contiguous().numpy()
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def write_image(path: Path | str, image: Tensor) -> None:
    """Write float ``[C, H, W]`` in [0, 1] as PNG or JPEG by the suffix of ``path``, atomically.

    JPEG has quality 95 and full-resolution colour (4:4:4), and no alpha: it is laid on white.
    The file appears under its name only when it is whole. Missing folders are made.

    Raises:
        PhotoError: unknown suffix, values that are not finite, or a failing disk.
    """
    path = Path(path)
    if path.suffix.lower() not in JPEG_SUFFIXES | {".png"}:
        raise PhotoError(f"{path}: can write .png, .jpg and .jpeg, not {path.suffix!r}")
    if not torch.isfinite(image).all():
        raise PhotoError(f"{path}: the image has values that are not finite")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in JPEG_SUFFIXES:
            opaque = composite(image) if image.shape[0] in (2, 4) else image
            to_pil(opaque).save(temporary, format="JPEG", quality=95, subsampling=0)
        else:
            to_pil(image).save(temporary, format="PNG")
        os.replace(temporary, path)
    except OSError as error:
        raise PhotoError(f"{path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # it was moved, or its folder could not be made
            temporary.unlink()


def split_alpha(image: Tensor) -> tuple[Tensor, Tensor | None]:
    """Colours ``[1 or 3, H, W]`` and alpha ``[1, H, W]`` (or None) of ``[C, H, W]``.

    Raises:
        ValueError: C is not 1 to 4, or an image is not three-dimensional.
    """
    if image.ndim != 3 or not 1 <= image.shape[0] <= 4:
        raise ValueError(f"expected [C, H, W] with 1 to 4 channels, got {tuple(image.shape)}")
    if image.shape[0] in (2, 4):
        return image[:-1], image[-1:]
    return image, None


def join_alpha(rgb: Tensor, colours: int, alpha: Tensor | None) -> Tensor:
    """RGB ``[3, H, W]`` as 1 or 3 ``colours``, with ``alpha`` if there is one."""
    if colours == 1:
        weights = torch.tensor(_LUMA, dtype=rgb.dtype, device=rgb.device)
        rgb = torch.einsum("chw,c->hw", rgb, weights)[None]
    return rgb if alpha is None else torch.cat([rgb, alpha])


def centre_crop(image: Tensor, side: int | None) -> Tensor:
    """The middle of ``[..., H, W]``, at most ``side`` pixels high and wide; None: all of it."""
    if side is None:
        return image
    top, left = (max(length - side, 0) // 2 for length in image.shape[-2:])
    return image[..., top : top + side, left : left + side].contiguous()
