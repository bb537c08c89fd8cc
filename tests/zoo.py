"""Odd files that people have, good and bad, made here: for the tests of the commands."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import ExifTags, Image, ImageCms

_RNG = np.random.default_rng(0)
RGBA = _RNG.integers(0, 256, (12, 17, 4), dtype=np.uint8)
DEEP = _RNG.integers(0, 65536, (12, 17, 4), dtype=np.uint16)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(mode: str = "RGB") -> Image.Image:
    """17 x 12 pixels of every colour."""
    image = Image.fromarray(RGBA)
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The content of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    """A TIFF by tifffile."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def huge_header() -> bytes:
    """A PNG that claims 60000 x 60000 pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + encoded(picture(), "PNG")[33:]


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encoded(picture(), "PNG", exif=exif)


def _holes() -> Image.Image:
    pixels = RGBA.copy()
    pixels[3:9, 4:11, 3] = 0
    return Image.fromarray(pixels)


def good() -> dict[str, bytes]:
    """Files without loss, by name: what goes in must come out."""
    lossless = {"lossless": True, "exact": True}
    frames = [picture(), picture().transpose(Image.Transpose.ROTATE_180)]
    palette = picture().quantize(16)
    files = {
        "one_bit.png": encoded(picture("1"), "PNG"),
        "grey.png": encoded(picture("L"), "PNG"),
        "grey_alpha.png": encoded(picture("LA"), "PNG"),
        "palette.png": encoded(palette, "PNG"),
        "palette_hole.png": encoded(palette, "PNG", transparency=3),
        "rgb.png": encoded(picture(), "PNG"),
        "rgba_holes.png": encoded(_holes(), "PNG"),
        "transparent_colour.png": encoded(picture(), "PNG", transparency=(1, 2, 3)),
        "display_p3.png": encoded(picture(), "PNG", icc_profile=PROFILE, dpi=(300, 300)),
        "capitals.PNG": encoded(picture(), "PNG"),
        "grey16.png": encoded(Image.fromarray(DEEP[..., 0]), "PNG"),
        "rgb16.png": bytes(imagecodecs.png_encode(DEEP[..., :3].copy())),
        "rgba16.png": bytes(imagecodecs.png_encode(DEEP)),
        "la16.png": bytes(imagecodecs.png_encode(DEEP[..., :2].copy())),
        "animated.png": encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "one_bit.tif": encoded(picture("1"), "TIFF"),
        "grey.tif": encoded(picture("L"), "TIFF"),
        "lzw.tiff": encoded(picture(), "TIFF", compression="tiff_lzw"),
        "rgba.tif": encoded(picture("RGBA"), "TIFF"),
        "pages.tif": encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "grey16.tif": tiff(DEEP[..., 0]),
        "rgb16.tif": tiff(DEEP[..., :3], photometric="rgb"),
        "planes16.tif": tiff(np.moveaxis(DEEP[..., :3], 2, 0), photometric="rgb"),
        "big_endian16.tif": tiff(DEEP[..., :3], photometric="rgb", byteorder=">"),
        "white_is_zero16.tif": tiff(DEEP[..., 0], photometric="miniswhite"),
        "packed12.tif": tiff(DEEP[..., :3] >> 4, photometric="rgb", bitspersample=12),
        "signed16.tif": tiff((DEEP[..., 0] >> 1).astype(np.int16)),
        "half.tif": tiff(_RNG.random((12, 17, 3)).astype(np.float16), photometric="rgb"),
        "infrared16.tif": tiff(DEEP, photometric="rgb", extrasamples=["unspecified"]),
        "big_tiff.tif": tiff(DEEP[..., :3], photometric="rgb", bigtiff=True),
        "float.tif": encoded(Image.fromarray(_RNG.random((12, 17), np.float32)), "TIFF"),
        "grey.bmp": encoded(picture("L"), "BMP"),
        "rgb.bmp": encoded(picture(), "BMP"),
        "lossless.webp": encoded(picture(), "WEBP", **lossless),
        "lossless_holes.webp": encoded(_holes(), "WEBP", **lossless),
        "pixel.png": encoded(picture().crop((0, 0, 1, 1)), "PNG"),
        "line.png": encoded(picture().crop((0, 0, 17, 1)), "PNG"),
        "tower.png": encoded(picture().resize((3, 5000)), "PNG"),
        "flat.gif": encoded(palette, "GIF"),
        "raw.ppm": b"P6 17 12 65535 " + DEEP[..., :3].astype(">u2").tobytes(),
        "deep_too.jp2": bytes(imagecodecs.jpeg2k_encode(DEEP[..., :3].copy(), codecformat="jp2")),
        "deep_as_well.jxl": bytes(imagecodecs.jpegxl_encode(DEEP[..., :3].copy(), lossless=True)),
        "portable.pgm": encoded(picture("L"), "PPM"),
        "ünïcödé 日本 🙂.png": encoded(picture(), "PNG"),
        "x" * 246 + ".png": encoded(picture(), "PNG"),
        "no.dots.like.this.png": encoded(picture(), "PNG"),
        "jpeg_inside.png": encoded(picture("L"), "PNG"),
    }
    return files | {f"turned{i}.png": _turned(i) for i in range(1, 9)}


def lossy() -> dict[str, bytes]:
    """Files whose pixels may change a little, or whose colours are converted."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    return {
        "photo.jpg": encoded(picture(), "JPEG", quality=95, exif=exif, dpi=(72, 72)),
        "phone.avif": encoded(picture(), "AVIF", exif=exif),
        "two.jfif": encoded(picture(), "MPO", save_all=True, append_images=[picture()]),
        "grey.jpeg": encoded(picture("L"), "JPEG"),
        "progressive.jpg": encoded(picture(), "JPEG", progressive=True),
        "print.jpg": encoded(picture("CMYK"), "JPEG"),
        "print.tif": encoded(picture("CMYK"), "TIFF"),
        "lossy.webp": encoded(picture(), "WEBP"),
        "named_wrongly.jpg": encoded(picture(), "PNG"),
        "deep_inside.jpg": bytes(imagecodecs.png_encode(DEEP[..., :3].copy())),
        "broken_exif.jpg": encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" * 4),
        "animated.gif": encoded(
            picture("P"), "GIF", save_all=True, append_images=[picture("P").rotate(90)]
        ),
    }


def bad() -> dict[str, tuple[bytes, str]]:
    """Files that are none, and what is said of them."""
    noise = Image.fromarray(_RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = {kind: encoded(noise, kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF")}
    wrong = np.full((4, 4), 7.0, np.float32)
    return {
        "empty.png": (b"", "empty"),
        "zeros.png": (bytes(500), "not an image"),
        "text.png": (b"just some text", "not an image"),
        "page.jpg": (b"<html><body>404</body></html>", "not an image"),
        "cut.jpg": (whole["JPEG"][:1500], "truncated"),
        "cut.png": (whole["PNG"][:1500], "truncated"),
        "cut.webp": (whole["WEBP"][:1500], ""),
        "cut.tif": (whole["TIFF"][:1500], ""),
        "header_only.png": (whole["PNG"][:33], ""),
        "huge.png": (huge_header(), "--max_megapixels"),
        "beyond.tif": (encoded(Image.fromarray(wrong), "TIFF"), "expected 0 to 1"),
        "complex.tif": (tiff(np.zeros((6, 7), np.complex64)), "is not supported"),
    }


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
