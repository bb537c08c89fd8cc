"""What is known of a photo before its pixels are."""

from __future__ import annotations

from pathlib import Path

from PIL import ExifTags, Image

from mrdiff.photo.channels import to_pil
from mrdiff.photo.files import OPENED
from mrdiff.photo.metadata import ON_ITS_SIDE
from mrdiff.photo.reading import read_image

__all__ = ["open_image", "upright_size"]


def open_image(path: Path | str) -> Image.Image:
    """A photo as Pillow opens it, not loaded; what Pillow cannot read is decoded, in 8 bits.

    Raises:
        PhotoError, OSError, ValueError, SyntaxError: it is missing, broken, or not a photo.
    """
    try:
        image = Image.open(path, formats=OPENED)
        if (image.format, image.mode) != ("TIFF", "I"):  # 32 bits, or 16 with a sign
            return image
        image.close()
    except Image.UnidentifiedImageError:
        pass
    return to_pil(read_image(path))


def upright_size(image: Image.Image, exif: Image.Exif) -> tuple[int, int]:
    """(width, height) as it is seen, of an image that may have been opened but not loaded."""
    width, height = image.size
    # Of a TIFF Pillow gives the upright size already.
    if image.format != "TIFF" and exif.get(ExifTags.Base.Orientation) in ON_ITS_SIDE:
        return height, width
    return width, height
