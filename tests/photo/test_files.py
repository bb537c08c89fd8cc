"""Files of every kind come back as they went in: pixels, depth, profile, EXIF, resolution."""

from __future__ import annotations

import io
import os
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
from PIL import ExifTags, Image, ImageOps

from mrdiff.photo import (
    FORMATS,
    PhotoError,
    encode_photo,
    like_original,
    open_image,
    read_photo,
    to_rgb,
    to_uint8,
    write_photo,
)
from mrdiff.photo.metadata import Metadata
from tests.zoo import DEEP, PROFILE, RGBA, encoded, picture

# What each kind of file can hold without loss.
LOSSLESS = [
    *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
    *(("TIFF", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
    *(("TIFF", "RGB", {"compression": c}) for c in ("tiff_lzw", "tiff_deflate", "packbits")),
    *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB")),
    *(("WEBP", mode, {"lossless": True, "exact": True}) for mode in ("RGB", "RGBA")),
]


@pytest.mark.parametrize(("kind", "mode", "options"), LOSSLESS)
def test_eight_bits_come_back_to_the_bit(kind: str, mode: str, options: dict[str, Any]) -> None:
    first = read_photo(encoded(picture(mode), kind, **options))
    expected = {"1": 1, "L": 1, "LA": 2, "P": 3, "RGB": 3, "RGBA": 4}[mode]
    assert first.image.shape == (expected, 12, 17)
    assert (first.bits, first.lossless, first.notes) == (8, True, ())
    again = read_photo(encode_photo(first.image, kind, first))
    assert torch.equal(again.image, first.image)
    if mode not in ("P", "1"):
        original = torch.from_numpy(np.atleast_3d(np.array(picture(mode)))).permute(2, 0, 1)
        assert torch.equal(to_uint8(first.image), original)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_come_back_to_the_bit(kind: str, channels: int) -> None:
    pixels = DEEP[..., :channels] if channels > 1 else DEEP[..., 0]
    if kind == "PNG":
        data = bytes(imagecodecs.png_encode(pixels.copy()))
    else:
        buffer = io.BytesIO()
        photometric = "rgb" if channels > 2 else "minisblack"
        extra = {"extrasamples": ["unassalpha"]} if channels in (2, 4) else {}
        planar = {"planarconfig": "contig"} if channels > 1 else {}
        tifffile.imwrite(buffer, pixels, photometric=photometric, **extra, **planar)
        data = buffer.getvalue()
    first = read_photo(data)
    assert first.bits == 16
    expected = torch.from_numpy(np.atleast_3d(pixels).astype(np.float32)).permute(2, 0, 1) / 65535
    torch.testing.assert_close(first.image, expected, rtol=0, atol=1e-7)
    again = read_photo(encode_photo(first.image, kind, first))
    assert again.bits == 16
    assert torch.equal(again.image, first.image)


def test_planes_apart_and_big_endian_and_compressed_tiff() -> None:
    for options in (
        {"planarconfig": "separate"},
        {"byteorder": ">"},
        {"compression": "lzw"},
        {"bigtiff": True, "compression": "zlib", "predictor": True, "tile": (16, 16)},
    ):
        buffer = io.BytesIO()
        pixels = DEEP[..., :3]
        given_ = np.moveaxis(pixels, -1, 0) if "planarconfig" in options else pixels
        tifffile.imwrite(buffer, given_, photometric="rgb", **options)
        photo = read_photo(buffer.getvalue())
        expected = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 65535
        torch.testing.assert_close(photo.image, expected, rtol=0, atol=1e-7, msg=str(options))


def test_floats_of_a_tiff_come_back() -> None:
    pixels = np.random.default_rng(2).random((12, 17), np.float32)
    first = read_photo(encoded(Image.fromarray(pixels), "TIFF"))
    assert first.bits == 32
    assert np.array_equal(read_photo(encode_photo(first.image, "TIFF", first)).image[0], pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "deep"])
def test_every_orientation_is_applied_and_reset(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] = 17
    image = picture("RGB")
    if kind == "deep":
        wide = np.asarray(image).astype(np.uint16) * 257
        photo = read_photo(bytes(imagecodecs.png_encode(wide)))
        block = Metadata(exif=exif.tobytes().removeprefix(b"Exif\0\0"))
        data = encode_photo(photo.image, "PNG", replace(photo, metadata=block))
        suffix = "PNG"
    else:
        options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}
        data, suffix = encoded(image, kind, exif=exif, **options.get(kind, {})), kind
    photo = read_photo(data)
    reference = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    expected = torch.from_numpy(np.asarray(reference).copy()).permute(2, 0, 1)
    assert torch.equal(to_uint8(photo.image), expected)
    written = Image.open(io.BytesIO(encode_photo(photo.image, suffix, photo)))
    assert written.size == reference.size
    assert written.getexif().get(ExifTags.Base.Orientation, 1) == 1
    if kind != "TIFF":  # whose directories Pillow does not read back before it loads
        inner = written.getexif().get_ifd(ExifTags.IFD.Exif)
        assert inner[ExifTags.Base.ExifImageWidth] == reference.width


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "deep PNG", "deep TIFF"])
def test_profile_exif_and_resolution_are_carried_over(kind: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 400
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    original = read_photo(
        encoded(picture("RGB"), "JPEG", exif=exif, icc_profile=PROFILE, dpi=(300, 240))
    )
    like = original
    if kind.startswith("deep"):
        like = replace(original, bits=16, lossless=True)
    again = read_photo(encode_photo(original.image, kind.split()[-1], like))
    assert again.metadata.icc == PROFILE
    if kind != "WEBP":  # which has no place for it
        assert again.metadata.dpi == pytest.approx((300, 240), abs=0.02)
    read = Image.Exif()
    read.load(again.metadata.exif)
    assert read[ExifTags.Base.Make] == "Camera"
    if kind != "deep TIFF":
        assert read.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] == 400
        assert read.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"


def test_print_colours_become_srgb_and_say_so() -> None:
    photo = read_photo(encoded(picture("RGB").convert("CMYK"), "TIFF"))
    assert photo.image.shape == (3, 12, 17)
    assert photo.notes == ("CMYK became RGB",)
    assert photo.metadata.icc is None
    lab = encoded(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF")
    white = read_photo(lab)
    assert white.notes == ("LAB became sRGB, through its profile",)
    assert white.image.min() > 0.98


def test_of_several_pictures_the_first_is_read_and_it_says_so() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    photo = read_photo(data)
    assert photo.notes == ("the first of 2 pictures",)
    assert photo.image[:, 0, 0].tolist() == [1, 0, 0]


def test_broken_exif_does_not_cost_the_photo() -> None:
    data = encoded(picture("RGB"), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff garbage" * 3)
    photo = read_photo(data)
    assert photo.image.shape == (3, 12, 17)


def test_what_a_format_cannot_hold_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"a\.bmp: a BMP cannot hold transparency"):
        write_photo(tmp_path / "a.bmp", torch.zeros(4, 2, 2))
    with pytest.raises(PhotoError, match=r"a\.webp: "):
        write_photo(tmp_path / "a.webp", torch.zeros(1, 1, 20000))
    long = tmp_path / ("x" * 300 + ".png")
    with pytest.raises(PhotoError, match="File name too long"):
        write_photo(long, torch.zeros(3, 2, 2))
    assert list(tmp_path.iterdir()) == []


def test_a_very_long_name_that_fits_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".png")  # 254 bytes
    write_photo(path, torch.zeros(3, 2, 2))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_bomb_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture("RGB"), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(PhotoError, match=r"a\.png: more than 0 megapixels; raise --max_megapixels"):
        read_photo(data, name="a.png")


def test_what_other_programs_would_run_is_no_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "gs"
    program.write_text(f'#!/bin/sh\ntouch "{tmp_path}/ran"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    (tmp_path / "a.png").write_bytes(encoded(picture(), "EPS"))
    for read in (read_photo, open_image):
        with pytest.raises(PhotoError, match=r"a\.png: not an image"):
            read(tmp_path / "a.png")
    assert not (tmp_path / "ran").exists()


def test_hidden_colours_are_those_of_the_nearest_visible_pixel() -> None:
    colours = torch.arange(4.0).expand(3, 1, 4).contiguous()
    alpha = torch.tensor([[[1.0, 0.0, 0.0, 0.5]]])
    assert to_rgb(torch.cat([colours, alpha]))[0, 0].tolist() == [0, 0, 3, 3]
    for whole in (torch.zeros(1, 1, 4), torch.ones(1, 1, 4)):
        assert torch.equal(to_rgb(torch.cat([colours, whole])), colours)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_a_network_does_not_change_comes_back_unchanged(channels: int) -> None:
    image = torch.from_numpy(RGBA[..., :channels].copy()).permute(2, 0, 1) / 255
    if channels in (2, 4):
        image[-1, :6] = 0
    back = like_original(to_rgb(image).clone(), image)
    assert torch.equal(to_uint8(back), to_uint8(image))


@settings(deadline=None)
@given(data=st.data(), kind=st.sampled_from(["PNG", "TIFF", "BMP", "WEBP"]))
def test_any_eight_bit_image_survives(data: st.DataObject, kind: str) -> None:
    channels = data.draw(st.sampled_from([1, 3] if kind == "BMP" else [1, 2, 3, 4]))
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    count = channels * height * width
    values = data.draw(st.binary(min_size=count, max_size=count))
    image = torch.tensor(list(values)).reshape(channels, height, width) / 255
    read = read_photo(encode_photo(image, kind)).image
    if read.shape[0] > channels:  # WebP has no grey
        grey = {1: [0, 0, 0], 2: [0, 0, 0, 1]}[channels]
        image = image[grey]
    read = read if read.shape[0] == image.shape[0] else torch.cat([read, torch.ones_like(read[:1])])
    assert torch.equal(to_uint8(read), to_uint8(image))


def test_the_formats_are_those_that_can_be_read_back(tmp_path: Path) -> None:
    for suffix in FORMATS:
        write_photo(tmp_path / f"a{suffix}", torch.full((3, 8, 8), 0.5))
        assert read_photo(tmp_path / f"a{suffix}").image.shape == (3, 8, 8)
