"""Reading and writing photos: every mode, every failure named, files whole or absent."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mrdiff.photo import (
    PhotoError,
    from_pil,
    list_images,
    read_image,
    read_rgb,
    to_pil,
    to_uint8,
    write_image,
)


def ramp(height: int = 5, width: int = 7) -> np.ndarray:
    return np.linspace(0, 255, height * width).astype(np.uint8).reshape(height, width)


def test_rgb_values_and_shape(tmp_path: Path) -> None:
    pixels = np.stack([ramp(), ramp()[::-1], 255 - ramp()], axis=-1)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_rgb(tmp_path / "a.png")
    assert image.dtype == torch.float32
    assert image.shape == (3, 5, 7)
    torch.testing.assert_close(image, torch.from_numpy(pixels).permute(2, 0, 1) / 255)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_keeps_its_range(tmp_path: Path, suffix: str) -> None:
    pixels = np.linspace(0, 65535, 35).astype(np.uint16).reshape(5, 7)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    image = read_rgb(tmp_path / f"a{suffix}")
    expected = torch.from_numpy(pixels.astype(np.float32) / 65535).expand(3, -1, -1)
    torch.testing.assert_close(image, expected)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    Image.fromarray(ramp()).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    assert image.shape == (1, 7, 5)
    expected = torch.from_numpy(np.rot90(ramp(), -1).copy()) / 255
    torch.testing.assert_close(image[0], expected)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 2), ("P", 3), ("RGB", 3), ("RGBA", 4), ("CMYK", 3), ("YCbCr", 3)],
)
def test_every_mode_becomes_channels_in_range(mode: str, channels: int) -> None:
    rgb = Image.fromarray(np.stack([ramp(), ramp(), ramp()], axis=-1))
    image = from_pil(rgb.convert(mode))
    assert image.shape == (channels, 5, 7)
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.max() > 0.9


def test_palette_with_transparency_has_alpha(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png", transparency=1)
    read = read_image(tmp_path / "a.png")
    assert read[:, 0, 0].tolist() == [1, 0, 0, 1]
    assert read[3, 0, 1] == 0


def test_alpha_is_laid_on_white_not_dropped(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png").eq(1).all()


def test_floats_out_of_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 3.0, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(PhotoError, match=r"a\.tif: values from 3 to 3, expected 0 to 1"):
        read_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\x89PNG\r\n\x1a\n broken", b"II*\0" + bytes(20)]
)
def test_broken_file_is_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(PhotoError, match=r"a\.png: ") as caught:
        read_rgb(tmp_path / "a.png")
    assert "\n" not in str(caught.value)
    assert re.search("not an image|empty|broken", str(caught.value))


def test_truncated_and_missing_files_are_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:1500])
    with pytest.raises(PhotoError, match=r"a\.jpg: .*truncated"):
        read_rgb(tmp_path / "a.jpg")
    with pytest.raises(PhotoError, match=r"b\.jpg: no such file"):
        read_rgb(tmp_path / "b.jpg")


def test_list_is_recursive_sorted_and_skips_hidden(tmp_path: Path) -> None:
    for name in ["b.PNG", "a.jpg", "s/c.png", ".h.png", ".d/e.png", "n.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = [p.relative_to(tmp_path).as_posix() for p in list_images(tmp_path)]
    assert names == ["a.jpg", "b.PNG", "s/c.png"]
    with pytest.raises(PhotoError, match="no such folder"):
        list_images(tmp_path / "none")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_round_trip_is_exact(tmp_path: Path, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (channels, 5, 7), generator=generator) / 255
    write_image(tmp_path / "s" / "a.png", image)
    assert torch.equal(to_uint8(read_image(tmp_path / "s" / "a.png")), to_uint8(image))


def test_jpeg_is_close_and_has_full_colour_resolution(tmp_path: Path) -> None:
    image = torch.zeros(3, 16, 16)
    image[0, :, ::2], image[2, :, 1::2] = 1, 1  # colour stripes, which 4:2:0 would smear
    write_image(tmp_path / "a.jpg", image)
    assert (read_rgb(tmp_path / "a.jpg") - image).abs().max() < 0.1


def test_values_are_clamped_and_rounded() -> None:
    assert to_uint8(torch.tensor([-1.0, 0.5, 0.9999, 2.0])).tolist() == [0, 128, 255, 255]
    with pytest.raises(ValueError, match="1 to 4 channels"):
        to_pil(torch.zeros(5, 2, 2))


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", torch.zeros(3, 2, 2))
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(PhotoError, match="not finite"):
        write_image(tmp_path / "a.png", torch.full((3, 2, 2), float("nan")))
    with pytest.raises(PhotoError, match="can write"):
        write_image(tmp_path / "a.gif", torch.zeros(3, 2, 2))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PhotoError, match="file"):
        write_image(tmp_path / "file" / "a.png", torch.zeros(3, 2, 2))
    assert (tmp_path / "a.png").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "file"]
