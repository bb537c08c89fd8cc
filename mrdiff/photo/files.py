"""Which files are photos, in which formats they are written, and the error of one."""

from __future__ import annotations

from pathlib import Path

__all__ = ["FORMATS", "IMAGE_SUFFIXES", "PhotoError", "list_images"]

# What is written, by suffix.
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
FORMATS |= {".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}
IMAGE_SUFFIXES = frozenset({*FORMATS, ".gif", ".ppm", ".pgm"})


class PhotoError(ValueError):
    """A photo that cannot be read or written: one line, naming the file and the reason."""


def list_images(folder: Path | str) -> list[Path]:
    """Every image file below ``folder``, sorted; hidden files and folders are skipped."""
    root = Path(folder)
    if not root.is_dir():
        raise PhotoError(f"{root}: no such folder")
    found = [path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
    visible = [p for p in found if not any(s.startswith(".") for s in p.relative_to(root).parts)]
    # A link to nowhere is a photo that cannot be read: it is reported, not passed over.
    return sorted(path for path in visible if path.is_file() or not path.exists())
