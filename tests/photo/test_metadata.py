"""What a photo carries comes back byte for byte, or the writer says that it does not."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import fields
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mrdiff.photo import Metadata, PhotoFile, encode_photo, read_photo
from mrdiff.photo.tags import Tag, Tags, merged, parse_tags
from tests.zoo import DEEP, PROFILE, RGBA, chunk, encoded, picture, tiff

KINDS = ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP"]
XMP = "<x:xmpmeta><rdf:Description dc:title='Grüße'/></x:xmpmeta>".encode()
IPTC = b"\x1c\x02\x78\0\x05Hallo"
PLACE = {
    33550: Tag(12, 3, struct.pack("<3d", 0.5, 0.5, 0)),
    33922: Tag(12, 6, struct.pack("<6d", 0, 0, 0, 5e5, 4.6e6, 0)),
    34735: Tag(3, 8, struct.pack("<8H", 1, 1, 0, 1, 3072, 0, 1, 32633)),
    42113: Tag(2, 6, b"-9999\0"),
}


def block(order: str = "<", *, text: bytes = b"a", orientation: int = 1) -> Tags:
    """Directories of every kind, with a maker's notes that are to stay at byte 400."""
    tags = Tags(order)  # type: ignore[arg-type]
    tags.main = {
        274: Tag(3, 1, tags.pack("H", orientation)),
        315: Tag(2, len(text) + 1, text + b"\0"),
        33432: Tag(2, len(text) + 1, text + b"\0"),
        50541: Tag(2, 4, b"odd\0"),
    }
    tags.exif = {
        37500: Tag(7, 9, b"MAKER\1\2\3\4", at=400),
        37510: Tag(7, 8 + len(text), b"\0" * 8 + text),
        40962: Tag(4, 1, tags.pack("I", 999)),
    }
    tags.gps = {1: Tag(2, 2, b"N\0"), 2: Tag(5, 3, tags.pack("6I", 48, 1, 8, 1, 0, 1))}
    tags.interop = {1: Tag(2, 4, b"R98\0")}
    return tags


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 255, marker, len(content) + 2) + content


def jpeg(exif: bytes = b"", **options: Any) -> bytes:
    """With comments, IPTC, XMP, a profile and a resolution."""
    options = {"icc_profile": PROFILE, "xmp": XMP, "dpi": (300, 240)} | options
    plain = encoded(picture(), "JPEG", exif=b"Exif\0\0" + exif, **options)
    resource = struct.pack(">4sHHI", b"8BIM", 0x0404, 0, len(IPTC)) + IPTC
    added = segment(0xFE, b"f\xfcr dich") + segment(0xFE, b"two")
    return plain[:20] + added + segment(0xED, b"Photoshop 3.0\0" + resource) + plain[20:]


def png(*, deep: bool, exif: bytes) -> bytes:
    """With texts, one of them late, XMP, a resolution, and what its colours mean."""
    if deep:
        plain = encode_photo(read_photo(tiff(DEEP[..., :3])).image, "PNG", PhotoFile(DEEP, bits=16))
    else:
        plain = encoded(picture(), "PNG")
    added = [
        chunk(b"gAMA", struct.pack(">I", 100000)),
        chunk(b"pHYs", struct.pack(">IIB", 11811, 9449, 1)),
        chunk(b"tEXt", b"Title\0f\xfcr dich"),
        chunk(b"zTXt", b"Long\0\0" + zlib.compress(b"text")),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(b"eXIf", exif),
    ]
    return plain[:33] + b"".join(added) + plain[33:-12] + chunk(b"tEXt", b"Late\0x") + plain[-12:]


def geotiff(dtype: type, *, exif: Tags, **options: Any) -> bytes:
    """With EXIF, XMP, IPTC, a profile, a resolution and a place on earth."""
    values = (DEEP[..., :3] >> (8 * (dtype is np.uint8))).astype(dtype)
    plain = tiff(
        values,
        photometric="rgb",
        metadata=None,
        iccprofile=PROFILE,
        resolution=(300, 240),
        resolutionunit="INCH",
        **options,
    )
    more = {700: Tag(1, len(XMP), XMP), 33723: Tag(7, len(IPTC), IPTC)}
    del exif.exif[37500]  # counts from the start of a block
    exif.main |= more | PLACE
    return merged(plain, exif)


def zoo(text: bytes) -> dict[str, bytes]:
    exif = block(text=text)
    plain = {"icc_profile": PROFILE, "xmp": XMP, "exif": b"Exif\0\0" + exif.block()}
    return {
        "a.jpg": jpeg(exif.block()),
        "big endian.jpg": jpeg(block(">", text=text).block()),
        "a.png": png(deep=False, exif=exif.block()),
        "deep.png": png(deep=True, exif=exif.block()),
        "a.webp": encoded(picture(), "WEBP", **plain),
        "a.avif": encoded(picture(), "AVIF", **plain | {"exif": _without_orientation(exif)}),
        "a.tif": geotiff(np.uint8, exif=block(text=text)),
        "deep.tif": geotiff(np.uint16, exif=block(text=text)),
        "big.tif": geotiff(np.uint16, exif=block(text=text), bigtiff=True),
        "a.gif": encoded(picture("P"), "GIF", comment=text),
    }


def _without_orientation(tags: Tags) -> bytes:
    return Tags(tags.order, {k: v for k, v in tags.main.items() if k != 274}, tags.exif).block()


def held(exif: bytes) -> dict[tuple[str, int], bytes]:
    """The values of the directories, but for those that a format says in another place."""
    tags = parse_tags(exif)
    parts = {"main": tags.main, "exif": tags.exif, "gps": tags.gps, "interop": tags.interop}
    elsewhere = (274, 282, 283, 296)
    return {
        (name, code): tag.value
        for name, part in parts.items()
        for code, tag in part.items()
        if code not in elsewhere
    }


NAMES = {"icc": "colour profile", "exif": "EXIF", "xmp": "XMP", "iptc": "IPTC"}
NAMES |= {"comments": "comment", "geo": "GeoTIFF tags", "chunks": "text", "dpi": "resolution"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["© Jürgen".encode(), "© Jürgen".encode("latin-1")])
def test_all_of_it_is_in_the_file_or_named_as_left_out(kind: str, text: bytes) -> None:
    for name, data in zoo(text).items():
        photo = read_photo(data, name=name)
        lost: list[str] = []
        written = encode_photo(photo.image, kind, photo, on_loss=lost.append)
        Image.open(io.BytesIO(written)).load()
        again = read_photo(written)
        assert again.notes == (), name
        for field in fields(Metadata):
            before, after = getattr(photo.metadata, field.name), getattr(again.metadata, field.name)
            if not before or NAMES[field.name] in " ".join(lost).replace("notes in EXIF", "notes"):
                continue
            if field.name == "exif":
                before, after = held(before), held(after)
                if kind == "TIFF":
                    assert before.pop(("exif", 37500), b"") == b"" or "maker" in lost[-1]
            if field.name == "dpi":
                if kind in ("WEBP", "AVIF"):
                    continue  # in EXIF, where Pillow does not look for it
                before = pytest.approx(before, abs=0.5 if kind in ("JPEG", "BMP") else 0.02)
            if field.name == "comments" and kind == "PNG":
                after = tuple(text for _, text in again.metadata.chunks)
                before = tuple(b"Comment\0" + text for text in before)
            assert after == before, (name, field.name, lost)
        if photo.metadata.exif and "EXIF" not in " ".join(lost).replace("notes in EXIF", ""):
            assert text in written, name


def test_what_a_jpeg_xl_says_is_read_packed_or_not() -> None:
    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", 8 + len(content)) + kind + content

    plain = bytes(imagecodecs.jpegxl_encode(RGBA, lossless=True, usecontainer=True))
    exif = b"\0\0\0\0" + block().block()
    parts = [(b"Exif", exif), (b"xml ", XMP)]
    packed = [(b"brob", kind + imagecodecs.brotli_encode(part)) for kind, part in parts]
    found = [read_photo(plain + b"".join(box(*b) for b in boxes)) for boxes in (parts, packed)]
    for photo in found:
        assert photo.metadata.exif is not None
        assert held(photo.metadata.exif)["main", 50541] == b"odd\0"
        assert photo.metadata.xmp == XMP
    bomb = box(b"brob", b"Exif" + imagecodecs.brotli_encode(bytes(2**25)))
    assert any("EXIF" in note for note in read_photo(plain + bomb).notes)


def test_nothing_is_lost_in_the_format_in_which_it_came() -> None:
    for name, data in zoo("© Jürgen".encode()).items():
        photo = read_photo(data)
        assert photo.notes == ()
        for field in ("icc", "exif", "xmp"):
            assert getattr(photo.metadata, field) or name == "a.gif" or "png" in name
        if photo.kind != "GIF":
            encode_photo(photo.image, photo.kind, photo, on_loss=pytest.fail)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_makers_notes_stay_where_they_were(order: str) -> None:
    """Many of them count from the start of the block."""
    photo = read_photo(jpeg(block(order, orientation=6).block()))
    assert photo.metadata.exif is not None
    tags = parse_tags(photo.metadata.exif)
    assert tags.exif[37500] == Tag(7, 9, b"MAKER\1\2\3\4", at=400)
    assert struct.unpack(order + "H", tags.main[274].value) == (1,)
    assert struct.unpack(order + "I", tags.exif[40962].value) == (12,)


def test_turned_photos_swap_their_resolution_and_lose_their_place() -> None:
    photo = read_photo(jpeg(block(orientation=6).block()))
    assert photo.metadata.dpi == (240, 300)
    turned = geotiff(np.uint16, exif=block(orientation=8))
    assert read_photo(turned).notes == ("GeoTIFF tags were left out: the picture was turned",)
    xmp = XMP.replace(b"dc:title", b'tiff:Orientation="8" dc:title')
    for data in (encoded(picture(), "WEBP", xmp=xmp), encoded(picture(), "JPEG", xmp=xmp)):
        photo = read_photo(data)
        assert photo.image.shape == (3, 17, 12)
        again = read_photo(encode_photo(photo.image, "PNG", photo))
        assert again.image.shape == photo.image.shape  # it is not turned a second time


def test_a_thumbnail_does_not_come_back() -> None:
    content = bytearray(block().block())
    first = struct.unpack_from("<I", content, 4)[0]
    after = first + 2 + 12 * struct.unpack_from("<H", content, first)[0]
    struct.pack_into("<I", content, after, len(content))
    thumbnail = b"\xff\xd8 the degraded photo"
    entry = struct.pack("<HHII", 513, 4, 1, len(content) + 18)
    content += struct.pack("<H", 1) + entry + b"\0" * 4 + thumbnail
    photo = read_photo(jpeg(bytes(content)))
    assert thumbnail not in encode_photo(photo.image, "JPEG", photo)


def test_what_is_too_long_for_a_jpeg_is_left_out_and_said() -> None:
    tags = block()
    tags.main[50541] = Tag(7, 70000, bytes(70000))
    data = encoded(picture(), "PNG", exif=b"Exif\0\0" + tags.block())
    gif = encoded(picture("P"), "GIF", comment=b"c" * 70000)
    for content, said in ((data, "EXIF"), (gif, "comment")):
        photo = read_photo(content)
        lost: list[str] = []
        encode_photo(photo.image, "JPEG", photo, on_loss=lost.append)
        assert lost == [f"left out, not held by JPEG: {said}"]


def test_the_texts_of_imagemagick_that_are_exif_are_read() -> None:
    hexed = block(text=b"me").block().hex().encode()
    text = b"Raw profile type exif\0\nexif\n     100\n" + hexed
    plain = encoded(picture(), "PNG")
    photo = read_photo(plain[:33] + chunk(b"tEXt", text) + plain[33:])
    assert photo.metadata.chunks == ()
    assert photo.metadata.exif is not None
    assert parse_tags(photo.metadata.exif).main[315].value == b"me\0"


def test_broken_parts_are_left_out_and_said() -> None:
    tags = block()
    content = tags.block()
    photo = read_photo(jpeg(content[: len(content) - 60]))
    assert photo.notes == ("parts of EXIF that cannot be read were left out",)
    assert read_photo(jpeg(b"nothing")).notes == ("EXIF that cannot be read was left out",)


_VALUES = st.builds(
    lambda content: Tag(7, len(content), content), st.binary(min_size=1, max_size=40)
)
_PARTS = st.dictionaries(st.integers(40000, 40900), _VALUES, max_size=5)


@settings(deadline=None)
@given(order=st.sampled_from(["<", ">"]), parts=st.tuples(*[_PARTS] * 4), at=st.integers(0, 300))
def test_any_directories_come_back(order: Any, parts: Any, at: int) -> None:
    tags = Tags(order, *parts)
    tags.exif[37500] = Tag(7, 30, bytes(range(30)), at=at)
    plain = tiff(DEEP[..., 0], metadata=None, byteorder=order, bigtiff=at % 2 == 0)
    for content in (tags.block(), merged(plain, tags)):
        again = parse_tags(content)
        assert again.whole
        for name in ("exif", "gps", "interop"):
            read = {code: tag.value for code, tag in getattr(again, name).items()}
            assert read == {code: tag.value for code, tag in getattr(tags, name).items()}
        assert all(again.main[code].value == tag.value for code, tag in tags.main.items())
    if at >= 8:
        assert parse_tags(tags.block()).exif[37500].at == at
    with tifffile.TiffFile(io.BytesIO(merged(plain, tags))) as file:
        assert np.array_equal(file.pages.first.asarray(), DEEP[..., 0])
