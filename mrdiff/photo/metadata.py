"""What a photo carries beside its pixels: colour profile, EXIF and resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import ExifTags, Image

__all__ = ["Metadata", "orientation_of", "read_metadata"]

_ORIENTATION = ExifTags.Base.Orientation
_WIDTH, _HEIGHT = ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight
# What says something about the picture. All else of a TIFF's first directory tells how the file
# stores it, and a thumbnail would show the degraded photo.
_TEXTS = "ImageDescription Make Model Software DateTime Artist Copyright Rating"
_TEXTS += " XPTitle XPComment XPAuthor XPKeywords XPSubject"
_CARRIED = [ExifTags.Base[name] for name in _TEXTS.split()]


@dataclass(frozen=True)
class Metadata:
    """What is carried over from a photo to the restored one.

    ``icc`` is the colour profile that the pixels' numbers mean (None: sRGB or unknown); ``exif``
    is upright, without a thumbnail; ``dpi`` are pixels an inch across and down.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation 1 to 8 that is still to be applied; 1 if it is not said or not readable."""
    try:
        value = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # what broken EXIF raises is not limited to anything
        return 1
    return value if 1 <= value <= 8 else 1


def _exif(image: Image.Image, width: int, height: int) -> bytes | None:
    given = image.getexif()
    carried = Image.Exif()
    carried.update({tag: given[tag] for tag in _CARRIED if tag in given})
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        entries = {k: v for k, v in given.get_ifd(directory).items() if not isinstance(v, dict)}
        for tag, length in ((_WIDTH, width), (_HEIGHT, height)):
            if tag in entries:
                entries[tag] = length
        if entries:
            carried.get_ifd(directory).update(entries)
    if _ORIENTATION in given:
        carried[_ORIENTATION] = 1
    # Of an empty one Pillow would write a header.
    some = len(carried) or any(carried.get_ifd(directory) for directory in ExifTags.IFD)
    return carried.tobytes() if some else None


def _dpi(given: Any) -> tuple[float, float] | None:
    across, down = (float(value) for value in given)
    return (across, down) if 0 < across < 1e5 and 0 < down < 1e5 else None


def read_metadata(image: Image.Image, width: int, height: int) -> tuple[Metadata, list[str]]:
    """The metadata of an opened photo of this upright size, and a line on each broken part."""
    broken = []
    exif = dpi = None
    try:
        exif = _exif(image, width, height)
    except Exception:  # as above
        broken.append("EXIF that cannot be read was left out")
    try:
        dpi = _dpi(image.info["dpi"]) if "dpi" in image.info else None
    except Exception:
        broken.append("a resolution that cannot be read was left out")
    icc = image.info.get("icc_profile")
    return Metadata(icc if isinstance(icc, bytes) and icc else None, exif, dpi), broken
