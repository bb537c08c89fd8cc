"""Print colours, and others that are no RGB, as sRGB."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image, ImageCms

__all__ = ["INKS", "NO_RGB", "fits", "to_srgb"]

NO_RGB = ("CMYK", "LAB", "YCbCr", "HSV")  # Pillow's modes
INKS = ("CMYK", "LAB")  # of which a profile is not one of the RGB that they become


def fits(icc: bytes, *, grey: bool) -> bool:
    """Whether a profile is one of such pixels, not of an ink's; one that is broken is let be."""
    space = icc[16:20] if icc[36:40] == b"acsp" else b""
    return space in (b"RGB ", b"") or (grey and space == b"GRAY")


def to_srgb(image: Image.Image) -> tuple[Image.Image, str]:
    """An image of one of the modes ``NO_RGB`` as RGB, and a line on how.

    CMYK goes through its profile; without one, or with one that is broken or not of an ink, it is
    taken for an ink of no absorption but its own.
    """
    icc = image.info.get("icc_profile")
    source: Any = None
    why = ""
    if image.mode == "LAB":
        source = ImageCms.createProfile("LAB")
    elif image.mode == "CMYK" and icc:
        why = ", without its profile, which is none of CMYK"
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            if profile.profile.xcolor_space.strip() == "CMYK":
                source = profile
        except OSError:
            why = ", without its profile, which is broken"
    if source is not None:
        target = ImageCms.createProfile("sRGB")
        try:
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            assert converted is not None  # only in place it returns nothing
            return converted, f"{image.mode} became sRGB, through its profile"
        except ImageCms.PyCMSError:
            why = ", without its profile, which is broken"
    rgb = image.convert("RGB")
    rgb.info.pop("icc_profile", None)
    return rgb, f"{image.mode} became RGB{why}"
