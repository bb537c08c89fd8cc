"""JPEG: the codec's own round trip, wherever its grid lies."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datamodules.degradations.jpeg import JPEG
from mrdiff.photo import read_rgb
from tests.places import SHARED

PAIRS = SHARED / "data" / "paired" / "jpeg-compressed"
WHOLE = (0, 0)  # the offset of a photograph that is not a crop


def _photo(channels: int, height: int, width: int) -> Tensor:
    """Something smooth with edges and colour, in multiples of 1/255."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    planes = [torch.sin(x / (5 + c)) + torch.cos(y / (7 - c)) + (x > y + 9 * c) for c in range(3)]
    image = torch.stack(planes[:channels]).float()
    image = (image - image.min()) / (image.max() - image.min())
    return image.mul(255).round().div(255)


def _degraded(jpeg: JPEG, image: Tensor, seed: int = 0) -> Tensor:
    return jpeg.degrade(image, torch.Generator().manual_seed(seed))


def _pillow(image: Tensor, quality: int, subsampling: int) -> Tensor:
    """The slow and obvious round trip, without any function of the project."""
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=quality, subsampling=subsampling)
    decoded = np.array(Image.open(file)).reshape(pixels.shape)
    return torch.from_numpy(decoded).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (8, 8)])
@pytest.mark.parametrize("quality", [5, 10, 40, 95])
def test_is_the_round_trip_of_pillow(quality: int, size: tuple[int, int]) -> None:
    for subsampling, chroma in enumerate([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]):
        jpeg = JPEG(quality=(quality, quality), chroma=chroma, offset=WHOLE)
        for channels in (1, 3):
            image = _photo(channels, *size)
            assert torch.equal(_degraded(jpeg, image), _pillow(image, quality, subsampling))


def _jumps(image: Tensor) -> Tensor:
    """Mean absolute third difference at each of 8 phases of columns: high at block edges."""
    bend = (image[..., 3:] - 3 * image[..., 2:-1] + 3 * image[..., 1:-2] - image[..., :-3]).abs()
    bend = bend.mean((0, 1))
    return torch.stack([bend[phase::8].mean() for phase in range(8)])


@pytest.mark.parametrize("offset", [0, 3, 5, 12])
def test_the_grid_begins_at_the_offset(offset: int) -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, (3, 96, 96))
    image = torch.from_numpy(values).float().clamp(0, 1)
    image = torch.nn.functional.avg_pool2d(image[None], 5, 1, 2, count_include_pad=False)[0]
    jpeg = JPEG(quality=(10, 10), offset=(offset, offset))
    # The blocks meet between columns 7 - offset and 8 - offset, modulo 8.
    edge = (7 - offset) % 8
    assert int(_jumps(_degraded(jpeg, image)).argmax()) == (edge - 1) % 8


def test_a_crop_of_a_larger_file_has_such_a_grid() -> None:
    # Away from the borders the patch is what cropping the compressed photograph gives.
    photo, top, left = _photo(3, 96, 96), 5, 5
    jpeg = JPEG(quality=(10, 10), chroma=(0.0, 0.0, 1.0), offset=(5, 5))
    patch = _degraded(jpeg, photo[:, top:, left:].contiguous())
    whole = _pillow(photo, 10, 2)[:, top:, left:]
    assert torch.allclose(patch[:, 16:60, 16:60], whole[:, 16:60, 16:60], atol=2.5 / 255)


def test_grids_of_many_patches_have_every_phase() -> None:
    image, jpeg = _photo(3, 64, 64), JPEG(quality=(10, 10), chroma=(0.0, 0.0, 1.0))
    pictures = {_degraded(jpeg, image, seed).numpy().tobytes() for seed in range(60)}
    assert len(pictures) > 45  # of 256 phases


def test_lower_quality_is_further_from_the_photo() -> None:
    image = _photo(3, 64, 64)
    errors = [
        float((_degraded(JPEG(quality=(q, q), offset=WHOLE), image) - image).square().mean())
        for q in (5, 10, 20, 40, 80)
    ]
    assert errors == sorted(errors, reverse=True)


def test_whole_numbers_are_weights_too() -> None:
    image = _photo(3, 32, 32)
    whole, real = (_degraded(JPEG(chroma=chroma), image) for chroma in ((2, 0, 1), (2.0, 0.0, 1.0)))
    assert torch.equal(whole, real)


def test_chroma_of_colour_is_coarser_than_whole_chroma() -> None:
    image = torch.zeros(3, 32, 32)
    image[0, :, 1::2] = 1  # red stripes one pixel wide
    whole = _degraded(JPEG(quality=(95, 95), chroma=(1.0, 0.0, 0.0), offset=WHOLE), image)
    halved = _degraded(JPEG(quality=(95, 95), chroma=(0.0, 0.0, 1.0), offset=WHOLE), image)
    assert float((whole - image).abs().mean()) < 0.02
    assert float((halved - image).abs().mean()) > 0.1


def test_the_best_quality_moves_a_pixel_by_few_levels() -> None:
    jpeg = JPEG(quality=(100, 100), chroma=(1.0, 0.0, 0.0))
    for channels in (1, 3):
        image = _photo(channels, 48, 48)
        assert float((_degraded(jpeg, image) - image).abs().max()) <= 3.01 / 255


@pytest.mark.parametrize(
    "wrong",
    [
        {"quality": (40, 10)},
        {"quality": (0, 10)},
        {"offset": (0, 16)},
        {"chroma": (0.0, 0.0, 0.0)},
        {"chroma": (1.0, -1.0, 0.5)},
    ],
)
def test_impossible_ranges_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} "):
        JPEG(**wrong)  # type: ignore[arg-type]


def _psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


@pytest.mark.skipif(not PAIRS.is_dir(), reason="needs the benchmark pairs in ../shared/data")
def test_default_jpeg_covers_the_benchmark() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = []
    for path in sorted((PAIRS / "GT").iterdir()):
        clean = read_rgb(path)
        theirs = _psnr(read_rgb(PAIRS / "LQ" / f"{path.stem}.jpg"), clean)
        ours = [_psnr(JPEG().degrade(clean, generator), clean) for _ in range(6)]
        shares.append(np.mean([psnr < theirs for psnr in ours]))
    assert 0.05 < np.mean(shares) < 0.5  # some are stronger than quality 10, most are weaker


@pytest.mark.skipif(not PAIRS.is_dir(), reason="needs the benchmark pairs in ../shared/data")
def test_quality_10_is_the_file_of_the_benchmark() -> None:
    path = min((PAIRS / "GT").iterdir())
    jpeg = JPEG(quality=(10, 10), chroma=(0.0, 0.0, 1.0), offset=WHOLE)
    theirs = read_rgb(PAIRS / "LQ" / f"{path.stem}.jpg")
    assert _psnr(_degraded(jpeg, read_rgb(path)), theirs) > 45  # another libjpeg may round once
