"""What the numbers of a file mean: black and white, bits, transparency, other channels, inks."""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mrdiff.photo import (
    FORMATS,
    IMAGE_SUFFIXES,
    PhotoError,
    PhotoFile,
    encode_photo,
    read_photo,
    write_photo,
)
from mrdiff.photo.kinds import channels_of
from tests.zoo import DEEP, PROFILE, RGBA, chunk, encoded, picture, tiff

NUMBERS = ["int8", "int16", "int32", "uint16", "uint32", "float16", "float32", "float64"]
TALL = struct.pack("<HHII", 257, 4, 1, 9000)  # an entry of a TIFF: so many rows, not 12
SHOWN = np.linspace(0, 1, 12 * 17).reshape(12, 17)


def top_of(dtype: str) -> float:
    return 1 if dtype.startswith("float") else float(np.iinfo(dtype).max)


def two_greys(bits: int) -> bytes:
    """A PNG of a black pixel and a white one, which is transparent."""
    white = 2**bits - 1
    row = (white << (8 - 2 * bits)).to_bytes(1) if bits < 8 else white.to_bytes(bits // 4)
    parts = [
        chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0)),
        chunk(b"tRNS", struct.pack(">H", white)),
        chunk(b"IDAT", zlib.compress(b"\0" + row)),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def page(data: bytes) -> tifffile.TiffPage:
    return tifffile.TiffFile(io.BytesIO(data)).pages.first


def plain(pixels: np.ndarray, **options: Any) -> bytes:
    return tiff(pixels, metadata=None, **options)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb"])
@pytest.mark.parametrize("dtype", NUMBERS)
def test_numbers_of_every_type_are_the_picture_and_stay(dtype: str, photometric: str) -> None:
    shown = np.stack([SHOWN] * 3, -1) if photometric == "rgb" else SHOWN
    stored = 1 - shown if photometric == "miniswhite" else shown
    data = plain((stored * top_of(dtype)).astype(dtype), photometric=photometric)
    photo = read_photo(data)
    assert np.abs(photo.image[0].numpy() - SHOWN).max() < (0.01 if dtype == "int8" else 0.001)
    written = encode_photo(photo.image, "TIFF", photo)
    again = read_photo(written)
    assert page(written).dtype == dtype
    assert (again.image - photo.image).abs().max() < 1e-3
    assert (photo.notes, again.notes) == ((), ())


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb"])
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10, 12, 14])
def test_bits_are_scaled_to_their_full_range_and_back(bits: int, photometric: str) -> None:
    shown = np.stack([SHOWN] * 3, -1) if photometric == "rgb" else SHOWN
    stored = 1 - shown if photometric == "miniswhite" else shown
    numbers = (stored * (2**bits - 1)).round().astype(np.uint8 if bits <= 8 else np.uint16)
    photo = read_photo(plain(numbers, photometric=photometric, bitspersample=bits))
    assert np.abs(photo.image[0].numpy() - SHOWN).max() <= 0.5 / (2**bits - 1) + 1e-6
    written = encode_photo(photo.image, "TIFF", photo)
    assert page(written).bitspersample == max(8, bits)
    torch.testing.assert_close(read_photo(written).image, photo.image, rtol=0, atol=0.002)
    assert read_photo(encode_photo(photo.image, "PNG", photo)).bits == (8 if bits < 8 else 16)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_fourth_channel_is_what_the_file_says(dtype: str) -> None:
    alpha = np.linspace(0.1, 1, 17)[None].repeat(12, 0)[..., None]
    colours = np.full((12, 17, 3), 0.75)
    options = {"photometric": "rgb", "planarconfig": "contig"}

    def made(colours: np.ndarray, kind: str) -> PhotoFile:
        values = np.concatenate([colours, alpha], -1) * top_of(dtype)
        return read_photo(plain(values.astype(dtype), extrasamples=[kind], **options))

    multiplied, straight = made(colours * alpha, "assocalpha"), made(colours, "unassalpha")
    assert (multiplied.image - straight.image).abs().max() < (0.05 if dtype == "uint8" else 1e-3)
    assert page(encode_photo(straight.image, "TIFF", straight)).extrasamples == (2,)

    infrared = made(colours, "unspecified")
    assert infrared.image.shape[0] == 3
    assert infrared.image.mean() == pytest.approx(0.75, abs=0.01)
    written = encode_photo(infrared.image, "TIFF", infrared)
    assert page(written).extrasamples == (0,)
    assert np.abs(page(written).asarray()[..., 3] / top_of(dtype) - alpha[..., 0]).max() < 0.01
    lost: list[str] = []
    encode_photo(infrared.image, "PNG", infrared, on_loss=lost.append)
    assert "channels beside the colours (1)" in " ".join(lost)


def test_other_channels_are_turned_and_kept_wherever_alpha_is() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (12, 17, 6), dtype=np.uint16)
    kinds = ["unspecified", "unassalpha", "unspecified"]
    options = {"photometric": "rgb", "planarconfig": "contig", "extratags": [(274, 3, 1, 6, True)]}
    photo = read_photo(plain(values, extrasamples=kinds, **options))
    assert photo.image.shape == (4, 17, 12)
    expected = np.rot90(values, -1)
    assert np.array_equal((photo.image[3] * 65535).round().numpy(), expected[..., 4])
    back = page(encode_photo(photo.image, "TIFF", photo)).asarray()
    assert np.array_equal(back, expected[..., [0, 1, 2, 4, 3, 5]])


def test_palettes_of_16_bits_and_pages_of_all_kinds() -> None:
    colours = np.random.default_rng(0).integers(0, 65536, (3, 65536), dtype=np.uint16)
    photo = read_photo(plain(DEEP[..., 0], photometric="palette", colormap=colours))
    assert np.array_equal((photo.image * 65535).round().numpy(), colours[:, DEEP[..., 0]])
    pages = read_photo(plain(np.moveaxis(DEEP, -1, 0), photometric="minisblack"))
    assert pages.notes == ("the first of 4 pictures",)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (plain(np.full((4, 5), -3, np.int16)), "values from -3 to -3, expected 0 to 32767"),
        (plain(np.full((4, 5), np.nan, np.float64)), "expected 0 to 1"),
        (plain(np.zeros((4, 5), np.complex64)), "is not supported"),
        (plain(DEEP[..., :3], photometric="cielab"), "CIELAB, 16 bits uint16, is not supported"),
        (plain(DEEP[..., 0]).replace(struct.pack("<HHII", 257, 4, 1, 12), TALL), "truncated"),
        (b"P6\n30 20\n65535\n" + bytes(100), "smaller"),
    ],
)
def test_numbers_without_a_meaning_are_refused_in_one_line(data: bytes, said: str) -> None:
    with pytest.raises(PhotoError, match=f"^a: .*{said}"):
        read_photo(data, name="a")


def test_grey_pngs_of_any_depth_have_their_transparent_value() -> None:
    for bits in (1, 2, 4, 8, 16):
        photo = read_photo(two_greys(bits))
        assert photo.image[:, 0].tolist() == [[0, 1], [1, 0]], bits
        assert photo.bits == max(8, bits)


@pytest.mark.parametrize("top", [255, 1023, 65535])
def test_portable_pixmaps_have_all_their_bits(top: int) -> None:
    values = np.random.default_rng(0).integers(0, top + 1, (12, 17, 3))
    numbers = values.astype(">u2" if top > 255 else np.uint8)
    texts = " ".join(map(str, values.ravel()))
    for data in (
        b"P6\n17 12 # as dcraw -6 writes it\n%d\n" % top + numbers.tobytes(),
        b"P3\n17 12\n%d\n# plain\n" % top + texts.encode(),
    ):
        photo = read_photo(data)
        assert photo.bits == (16 if top > 255 else 8)
        assert np.abs(photo.image.permute(1, 2, 0).numpy() - values / top).max() < 1e-6


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_jpeg_2000_and_jpeg_xl_are_read_with_all_their_bits(dtype: str) -> None:
    pixels = (DEEP[..., :3] >> (8 if dtype == "uint8" else 0)).astype(dtype)
    for data in (
        imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2", reversible=True),
        imagecodecs.jpegxl_encode(pixels, lossless=True),
    ):
        photo = read_photo(bytes(data))
        assert photo.bits == np.iinfo(dtype).bits
        expected = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / top_of(dtype)
        torch.testing.assert_close(photo.image, expected, rtol=0, atol=1e-6)
        assert not photo.lossless


def test_a_jpeg_xl_is_measured_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in ((12, 17), (64, 64), (300, 400), (40, 16)):
        data = bytes(imagecodecs.jpegxl_encode(np.zeros(size, np.uint8), lossless=True))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", size[0] * size[1] / 2)
        assert read_photo(data).image.shape == (1, *size)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", size[0] * size[1] / 2 - 1)
        with pytest.raises(PhotoError, match="max_megapixels"):
            read_photo(data)


def test_a_jpeg_xl_that_moves_says_so() -> None:
    for shape, notes in (((3, 12, 17, 3), 2), ((3, 64, 64, 4), 2), ((12, 17, 3), 1)):
        pixels = np.zeros(shape, np.uint8)
        data = bytes(imagecodecs.jpegxl_encode(pixels, lossless=True, photometric="rgb"))
        found = read_photo(data).notes
        assert len(found) == notes
        assert ("the first picture of an animation" in found) == (notes == 2)
    with pytest.raises(PhotoError, match=r"^a\.jxl: Jxl"):
        read_photo(b"\0\0\0\x0cJXL \r\n\x87\n", name="a.jxl")


def test_an_mpo_is_a_jpeg_and_avif_keeps_its_channels() -> None:
    photo = read_photo(encoded(picture(), "MPO", save_all=True, append_images=[picture()]))
    assert (photo.kind, photo.lossless) == ("JPEG", False)
    assert photo.notes == ("the first of 2 pictures",)
    for mode in ("L", "RGB", "RGBA"):
        first = read_photo(encoded(picture(mode), "AVIF", quality=95))
        again = read_photo(encode_photo(first.image, "AVIF", first))
        assert again.image.shape == first.image.shape
    many = imagecodecs.avif_encode(DEEP[..., :3] >> 6, bitspersample=10)
    assert read_photo(bytes(many)).notes == ("more than 8 bits became 8",)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_print_colours_fall_back_and_never_keep_a_profile(kind: str) -> None:
    ink = bytearray(PROFILE)
    ink[16:20] = b"CMYK"
    for icc, said in ((PROFILE, "none of CMYK"), (bytes(ink), "broken"), (b"icc" * 99, "broken")):
        photo = read_photo(encoded(picture("CMYK"), kind, icc_profile=icc))
        assert photo.notes[0].startswith("CMYK became RGB, without its profile")
        assert said in photo.notes[0]
        assert photo.metadata.icc is None


def test_print_colours_of_16_bits_become_rgb_of_8() -> None:
    photo = read_photo(plain(DEEP, photometric="separated"))
    assert (photo.bits, photo.image.shape[0]) == (8, 3)
    assert photo.notes == ("CMYK became RGB, of 8 bits",)


def test_print_colours_keep_their_transparency() -> None:
    layers = np.concatenate([RGBA, RGBA[..., :1]], axis=-1)
    photo = read_photo(tiff(layers, photometric="separated", extrasamples=["unassalpha"]))
    assert photo.extra is None
    assert torch.equal(photo.image[3], torch.from_numpy(RGBA[..., 0]).float() / 255)
    infrared = read_photo(tiff(layers, photometric="separated", extrasamples=["unspecified"]))
    assert infrared.extra is not None
    assert torch.equal(infrared.image, photo.image[:3])


def test_no_rgb_under_the_profile_of_an_ink() -> None:
    ink = bytearray(PROFILE)
    ink[16:20] = b"CMYK"
    for mode in ("CMYK", "RGB"):
        image = picture(mode)
        image.info.update(icc_profile=bytes(ink), dpi=(300, 300))
        pixels, as_given = channels_of(image)
        assert as_given(pixels).info == {"dpi": (300, 300)}
    photo = read_photo(encoded(picture(), "PNG", icc_profile=bytes(ink)))
    lost: list[str] = []
    assert b"iCCP" not in encode_photo(photo.image, "PNG", photo, on_loss=lost.append)
    assert "a colour profile of other channels" in lost[0]


def test_what_a_format_takes_away_is_said() -> None:
    clear = torch.full((4, 2, 2), 0.5)
    said = {
        ("JPEG", 8): "transparency was laid on white",
        ("JPEG", 16): "16 bits became 8",
        ("WEBP", 16): "16 bits became 8",
        ("AVIF", 32): "32 bits became 8",
        ("PNG", 32): "32 bits became 16",
        ("PNG", 16): "",
        ("TIFF", 64): "",
        ("WEBP", 8): "",
    }
    for (kind, bits), expected in said.items():
        lost: list[str] = []
        encode_photo(clear, kind, replace(PhotoFile(clear), bits=bits), on_loss=lost.append)
        assert bool(lost) == bool(expected)
        assert expected in " ".join(lost)
    encode_photo(torch.ones(4, 2, 2), "JPEG", on_loss=pytest.fail)  # nothing is transparent


def test_a_pipe_or_a_device_is_no_photo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", Path("/dev/zero"), tmp_path):
        with pytest.raises(PhotoError, match=f"{path}: .*not a file"):
            read_photo(path)


@settings(deadline=None)
@given(data=st.data(), sample=st.sampled_from(["uint", "int", "float"]))
def test_any_numbers_of_a_tiff_survive(data: st.DataObject, sample: str) -> None:
    widths = {"uint": [8, 10, 12, 14, 16, 32], "int": [8, 16, 32], "float": [16, 32, 64]}
    bits = data.draw(st.sampled_from(widths[sample]))
    channels, extra = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 2))
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    values = torch.rand(channels + extra, height, width, generator=generator)
    like = PhotoFile(values[:channels], bits=bits, sample=sample, extra=values[channels:])
    again = read_photo(encode_photo(like.image, "TIFF", like))
    assert (again.bits, again.sample) == (bits, sample)
    step = 0.001 if sample == "float" else 0.51 / (2 ** (bits - (sample == "int")) - 1)
    assert (again.image - like.image).abs().max() <= step + 1e-6
    if extra:
        assert again.extra is not None
        assert (again.extra - values[channels:]).abs().max() <= step + 1e-6


def test_every_suffix_of_a_photo_is_written_or_becomes_a_png(tmp_path: Path) -> None:
    assert {".jfif", ".jpe", ".avif", ".jp2", ".jxl"} <= IMAGE_SUFFIXES
    for suffix in FORMATS:
        write_photo(tmp_path / f"a{suffix}", torch.full((3, 8, 8), 0.5))
        assert read_photo(tmp_path / f"a{suffix}").kind == FORMATS[suffix]


def test_colours_of_a_png_stay(tmp_path: Path) -> None:
    plain_png = encoded(picture(), "PNG")
    kept = [chunk(b"gAMA", bytes([0, 1, 134, 160])), chunk(b"cICP", bytes([9, 16, 0, 1]))]
    photo = read_photo(plain_png[:33] + b"".join(kept) + plain_png[33:])
    for bits in (8, 16):
        written = encode_photo(photo.image, "PNG", replace(photo, bits=bits))
        assert all(part in written for part in kept)
    lost: list[str] = []
    encode_photo(photo.image, "TIFF", photo, on_loss=lost.append)
    assert lost == ["left out, not held by TIFF: gAMA, cICP"]
