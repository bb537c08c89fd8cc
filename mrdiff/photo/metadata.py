"""What a photo carries beside its pixels, and which format holds what of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from PIL import ExifTags, Image

from mrdiff.photo.inks import fits
from mrdiff.photo.jxl import JXL_STARTS, jxl_metadata
from mrdiff.photo.tags import Tag, Tags, parse_tags

__all__ = ["ON_ITS_SIDE", "Metadata", "fitting", "orientation_of", "read_metadata"]

ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF orientations
_ORIENTATION, _XMP, _IPTC, _ICC = 274, 700, 33723, 34675
_ACROSS, _DOWN, _MAKER = 282, 283, 37500
# What tells how a file stores its pixels: the writer's business. 37724: layers.
_STORAGE = {*range(254, 267), 273, *range(277, 282), 284, *range(288, 294), 297, 301, 317}
_STORAGE |= {*range(320, 329), 330, *range(332, 348), 400, *range(512, 522), *range(529, 533), 559}
_STORAGE |= {_XMP, _IPTC, _ICC, 34377, 37724}
_PLACE = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)  # of a GeoTIFF
_TEXTS, _COLOURS = (
    (b"tEXt", b"zTXt", b"iTXt"),
    (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI"),
)
_RAW_PROFILE = b"Raw profile type "  # by which ImageMagick keeps EXIF and more as texts
_LONGEST = 65502  # bytes in a segment of a JPEG, after its longest name


@dataclass(frozen=True)
class Metadata:
    """What is carried over from a photo to the restored one.

    ``icc`` is the colour profile that the pixels' numbers mean (None: sRGB or unknown); ``exif``
    is upright, without a thumbnail; ``dpi`` are pixels an inch across and down; ``geo``, a block as
    EXIF is one, says where on earth the picture lies; ``chunks`` are texts and colours of a PNG.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    comments: tuple[bytes, ...] = ()
    geo: bytes | None = None
    chunks: tuple[tuple[bytes, bytes], ...] = ()


_CALLED = {"icc": "colour profile", "exif": "EXIF", "dpi": "resolution", "xmp": "XMP"}
_CALLED |= {"iptc": "IPTC", "comments": "comment", "geo": "GeoTIFF tags"}
_HELD = {
    "JPEG": {"icc", "exif", "dpi", "xmp", "iptc", "comments"},
    "PNG": {"icc", "exif", "dpi", "xmp", "comments", "chunks"},
    "WEBP": {"icc", "exif", "dpi", "xmp"},
    "AVIF": {"icc", "exif", "dpi", "xmp"},
    "TIFF": {"icc", "exif", "dpi", "xmp", "iptc", "geo"},
    "BMP": {"dpi"},
}


def fitting(kind: str, metadata: Metadata, *, grey: bool) -> tuple[Metadata, list[str]]:
    """What a format can hold of a picture in grey or colour, and the names of what it cannot."""
    held, lost = _HELD[kind], []
    if metadata.icc and not fits(metadata.icc, grey=grey and kind != "WEBP"):  # which has no grey
        metadata = replace(metadata, icc=None)
        lost.append("a colour profile of other channels")
    names = [field.name for field in fields(metadata) if getattr(metadata, field.name)]
    out = [name for name in names if name not in held]
    if kind == "JPEG":
        parts = [(name, getattr(metadata, name) or b"") for name in ("exif", "xmp", "iptc")]
        parts += [("comments", comment) for comment in metadata.comments]
        out += [name for name, part in parts if len(part) > _LONGEST]
    if kind == "TIFF" and metadata.exif:
        tags = parse_tags(metadata.exif)
        if tags.exif.pop(_MAKER, None):  # what it counts from is elsewhere there
            lost.append("the maker's notes in EXIF")
            metadata = replace(metadata, exif=tags.block())
    for name in out:
        lost += _colours_and_texts(metadata) if name == "chunks" else [_CALLED[name]]
    defaults: dict[str, Any] = {field.name: field.default for field in fields(metadata)}
    return replace(metadata, **{name: defaults[name] for name in out}), lost


def _colours_and_texts(metadata: Metadata) -> list[str]:
    kinds = {kind for kind, _ in metadata.chunks}
    texts = [content.split(b"\0")[0] for kind, content in metadata.chunks if kind in _TEXTS]
    said = [f"text {text.decode('latin-1')!r}" for text in texts]
    # The profile counts more than they, and sRGB is what no word means.
    plain = metadata.icc is not None or b"sRGB" in kinds
    colours = (b"cICP", b"mDCV", b"cLLI") if plain else _COLOURS
    return [kind.decode() for kind in colours if kind in kinds] + said


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation 1 to 8 that is still to be applied; 1 if it is not said or not readable."""
    try:
        value = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # what broken EXIF raises is not limited to anything
        return 1
    return value if 1 <= value <= 8 else 1


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each chunk, as far as they go."""
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size


def _upright(tags: Tags, orientation: int, width: int, height: int) -> None:
    """Make these directories those of the upright picture of this size."""
    for code in _STORAGE & tags.main.keys():
        del tags.main[code]
    if _ORIENTATION in tags.main:
        tags.main[_ORIENTATION] = Tag(3, 1, tags.pack("H", 1))
    if orientation in ON_ITS_SIDE and {_ACROSS, _DOWN} <= tags.main.keys():
        across, down = tags.main[_ACROSS], tags.main[_DOWN]
        tags.main |= {_ACROSS: down, _DOWN: across}
    sides = ((ExifTags.Base.ExifImageWidth, width), (ExifTags.Base.ExifImageHeight, height))
    for code, length in sides:
        if code in tags.exif:
            tags.exif[code] = Tag(4, 1, tags.pack("I", length))


def _carried_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    known = [b"XML:com.adobe.xmp", *(_RAW_PROFILE + name for name in (b"exif", b"APP1", b"xmp"))]
    for kind, content in _png_chunks(data):
        if kind in _COLOURS or (kind in _TEXTS and content.split(b"\0")[0] not in known):
            yield kind, content


def _block(image: Image.Image | None, data: bytes) -> bytes | None:
    """The directories of EXIF as they lie in a file."""
    if data.startswith(JXL_STARTS):
        exif = jxl_metadata(data).get(b"Exif", b"")
        return exif[4 + int.from_bytes(exif[:4], "big") :]
    if image is None or image.format == "TIFF":
        return data
    late = [part for kind, part in _png_chunks(data) if kind == b"eXIf"] if _is_png(data) else []
    block = late[0] if late else image.info.get("exif")
    if block is None and (text := image.info.get(_RAW_PROFILE.decode() + "exif")):
        block = bytes.fromhex("".join(text.split("\n")[3:]))
    return block and block.removeprefix(b"Exif\0\0")


def _is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG")


def _directories(
    image: Image.Image | None, data: bytes, orientation: int, width: int, height: int
) -> tuple[dict[str, Any], list[str]]:
    """EXIF and, of a TIFF, all else that is in its directories."""
    said: list[str] = []
    block = _block(image, data)
    if not block:
        return {}, said
    tags = parse_tags(block)
    if not tags.whole:
        said.append("parts of EXIF that cannot be read were left out")
    found: dict[str, Any] = {}
    if block is data:
        for name, code in (("icc", _ICC), ("xmp", _XMP), ("iptc", _IPTC)):
            if code in tags.main:
                found[name] = tags.main[code].value
        if tags.exif.pop(_MAKER, None):
            said.append("the maker's notes of a TIFF were left out")
    place = {code: tags.main.pop(code) for code in _PLACE if code in tags.main}
    _upright(tags, orientation, width, height)
    if place and orientation == 1:
        found["geo"] = Tags(tags.order, main=place).block()
    elif place:
        said.append("GeoTIFF tags were left out: the picture was turned")
    if tags:
        found["exif"] = tags.block()
    return found, said


def _dpi(given: Any, orientation: int) -> tuple[float, float] | None:
    across, down = (float(value) for value in given)
    if not (0 < across < 1e5 and 0 < down < 1e5):
        return None
    return (down, across) if orientation in ON_ITS_SIDE else (across, down)


def _upright_xmp(xmp: bytes | None) -> bytes | None:
    """With its own orientation reset: some readers, Pillow too, take it where EXIF has none."""
    return xmp and re.sub(rb"(tiff:Orientation(?:=[\"']|>))[2-8]", rb"\g<1>1", xmp)


def read_metadata(
    image: Image.Image | None, data: bytes, orientation: int, width: int, height: int
) -> tuple[Metadata, list[str]]:
    """The metadata of a photo of this upright size, and a line on each part that is left out.

    ``image`` is what Pillow opened; None of a TIFF that it cannot open.
    """
    said: list[str] = []
    found: dict[str, Any] = {}
    is_jxl = data.startswith(JXL_STARTS)
    info: dict[Any, Any] = {} if image is None else image.info
    try:
        found, said = _directories(image, data, orientation, width, height)
        if is_jxl:
            found["xmp"] = jxl_metadata(data).get(b"xml ")
    except Exception:  # what broken EXIF raises is not limited to anything
        said.append("EXIF that cannot be read was left out")
    dpi = None
    try:
        dpi = _dpi(info["dpi"], orientation) if "dpi" in info else None
    except Exception:
        said.append("a resolution that cannot be read was left out")
    for name, key in (("icc", "icc_profile"), ("xmp", "xmp")):
        if isinstance(info.get(key), bytes) and info[key]:
            found.setdefault(name, info[key])
    segments = getattr(image, "applist", [])
    if any(part.startswith(b"http://ns.adobe.com/xmp/extension/") for _, part in segments):
        said.append("the extension of XMP was left out")
    comments = [part for name, part in segments if name == "COM"] or [info.get("comment")]
    resources = info.get("photoshop")
    if is_jxl:
        said.append("a colour profile, if there is one, is not read of a JPEG XL")
    if isinstance(resources, dict) and resources.get(0x0404):
        found["iptc"] = resources[0x0404]
    metadata = Metadata(
        **found | {"xmp": _upright_xmp(found.get("xmp"))},
        dpi=dpi,
        comments=tuple(part for part in comments if isinstance(part, bytes) and part),
        chunks=tuple(_carried_chunks(data)) if _is_png(data) else (),
    )
    return metadata, said
